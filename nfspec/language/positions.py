"""Positions of the keys and values of a TOML text, which `tomllib` does not give.

Only called on text that `tomllib` has accepted, so it need not report errors itself.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_ATOM = re.compile(r"[^,\]}#\n]+")  # a number, a boolean, a date


class _Scanner:
    """Walks a valid text once; `offsets` maps each path to its offset in the text."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.offsets: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # arrays of tables: how many tables so far

    def match(self, pattern: re.Pattern[str]) -> str:
        """Step over what matches here, and return it."""
        m = pattern.match(self.text, self.at)
        if m is None:
            return ""
        self.at = m.end()
        return m.group()

    def take(self, literal: str) -> bool:
        """Step over a literal if it is here."""
        here = self.text.startswith(literal, self.at)
        self.at += len(literal) * here
        return here

    def document(self) -> dict[Path, int]:
        table: Path = ()
        self.match(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.match(_BLANK)
        return self.offsets

    def header(self) -> Path:
        """Read `[a.b]` or `[[a.b]]`, and return the path of the table it opens."""
        start = self.at
        closing = "]]" if self.take("[[") else "]"
        self.take("[")
        *around, last = self.key()
        self.take(closing)
        path: Path = ()
        for part in around:
            path = (*path, part)
            self.offsets.setdefault(path, start)
            if path in self.counts:  # a header below an array of tables means its last table
                path = (*path, self.counts[path] - 1)
        path = (*path, last)
        if closing == "]]":
            self.offsets.setdefault(path, start)
            index = self.counts.get(path, 0)
            self.counts[path] = index + 1
            path = (*path, index)
        self.offsets[path] = start
        return path

    def key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self.match(_SPACE)
            if quoted := self.match(_STRING):
                parts.extend(tomllib.loads(f"{quoted} = 0"))
            else:
                parts.append(self.match(_BARE_KEY))
            self.match(_SPACE)
            if not self.take("."):
                return tuple(parts)

    def pair(self, table: Path) -> None:
        start = self.at
        path = table
        for part in self.key():
            path = (*path, part)
            self.offsets.setdefault(path, start)
        self.take("=")
        self.match(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        if self.take("["):
            index = 0
            self.match(_BLANK)
            while not self.take("]"):
                self.offsets[(*path, index)] = self.at
                self.value((*path, index))
                index += 1
                self.separator()
        elif self.take("{"):
            self.match(_BLANK)
            while not self.take("}"):
                self.pair(path)
                self.separator()
        elif not self.match(_STRING):
            self.match(_ATOM)

    def separator(self) -> None:
        self.match(_BLANK)
        self.take(",")
        self.match(_BLANK)


def positions(text: str) -> dict[Path, tuple[int, int]]:
    """Map every path of a valid TOML text to (line, column), both from 1.

    A key's position is where it is written, a table's its header (of a table that has none, the
    first key or header below it), an array element's the element.
    """
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    offsets = {}
    for path, offset in _Scanner(text).document().items():
        line = bisect(starts, offset)
        offsets[path] = (line, offset - starts[line - 1] + 1)
    return offsets
