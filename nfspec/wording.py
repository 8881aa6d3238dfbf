"""Values and names in the form that messages show: on one line, short, harmless to a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 60  # characters of a value in a message
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def printable(text: str) -> str:
    """Text in which characters that a terminal would act on, such as an escape, are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException, most: int = 200) -> str:
    """The first line of an error's message, cut to a length; the error's kind if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:most]


def few(names: Iterable[str], most: int = 10) -> str:
    """A short text for a list of names of any length: `a, b and 8 more`."""
    listed = list(names)
    text = ", ".join(map(printable, listed[:most]))
    return f"{text} and {len(listed) - most:,} more" if len(listed) > most else text


def toml_string(text: str) -> str:
    """Text as a TOML string on one line, harmless to a terminal."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)


def toml_key(key: str) -> str:
    """A part of a dotted key as TOML writes it: bare where it may be, otherwise quoted."""
    return key if BARE_KEY.fullmatch(key) else toml_string(key)


def quoted(text: str) -> str:
    """Text as a TOML string, cut to a length that fits a line."""
    return toml_string(text if len(text) <= LONGEST else text[: LONGEST - 3] + "...")


def either(choices: Sequence[str]) -> str:
    """A list of choices: `a, b or c`."""
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def entries(n: int) -> str:
    return f"{n} entry" if n == 1 else f"{n} entries"


def sizes(n: int) -> str:
    return "1 size" if n == 1 else f"{n} sizes"


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
        return text if len(text) <= LONGEST and len(value) <= 20 else f"an array of {len(value)}"
    return str(value)
