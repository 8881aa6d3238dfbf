"""Values and names as messages show them: on one line, short, harmless to a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def printable(text: str) -> str:
    """Text with what a terminal would act on, such as an escape or a line break, spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def few(names: Iterable[str], most: int = 10) -> str:
    """A short text for a list of names of any length: `a, b and 8 more`."""
    found = list(names)
    text = ", ".join(map(printable, found[:most]))
    return f"{text} and {len(found) - most:,} more" if len(found) > most else text


def quoted(text: str) -> str:
    """Text as a TOML string, cut to a length that fits a line."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return '"' + printable(cut.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def entries(n: int) -> str:
    return f"{n} entry" if n == 1 else f"{n} entries"


def found_text(value: Any) -> str:
    """A value as TOML would write it, cut to a length that fits a line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a whole number of about {value.bit_length() * 30103 // 100000} digits"
    if isinstance(value, list | tuple):
        text = "[" + ", ".join(map(found_text, value[:20])) + "]"
        return text if len(text) <= 60 and len(value) <= 20 else f"an array of {len(value)}"
    return str(value)
