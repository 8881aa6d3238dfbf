"""Where each key and value of a TOML text stands, which `tomllib` does not say.

Only called on text that `tomllib` has accepted, so it need not report errors itself.
"""

from __future__ import annotations

import re
import tomllib

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
_ATOM = re.compile(r"[^,\]}#\n]+")


class _Scanner:
    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # arrays of tables: how many so far

    def match(self, pattern: re.Pattern[str]) -> str:
        m = pattern.match(self.text, self.at)
        if m is None:
            return ""
        self.at = m.end()
        return m.group()

    def take(self, literal: str) -> bool:
        found = self.text.startswith(literal, self.at)
        self.at += len(literal) * found
        return found

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.match(_BLANK) is not None and self.at < len(self.text):
            start = self.at
            if self.take("[["):
                path = self.key()
                index = self.tables.get(path, -1) + 1
                self.tables[path] = index
                table = (*path, index)
                self.found.setdefault(path, start)
                self.found[table] = start
                self.at = self.text.index("]]", self.at) + 2
            elif self.take("["):
                table = self.key()
                self.found[table] = start
                self.at = self.text.index("]", self.at) + 1
            else:
                self.pair(table)
        return self.found

    def key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self.match(_SPACE)
            if self.text[self.at] in "\"'":
                parts.append(next(iter(tomllib.loads(f"{self.match(_STRING)} = 0"))))
            else:
                parts.append(self.match(_BARE_KEY))
            self.match(_SPACE)
            if not self.take("."):
                return tuple(parts)

    def pair(self, table: Path) -> None:
        self.match(_SPACE)
        start = self.at
        key = self.key()
        for n in range(1, len(key) + 1):
            self.found.setdefault((*table, *key[:n]), start)
        self.take("=")
        self.match(_SPACE)
        self.value((*table, *key))

    def value(self, path: Path) -> None:
        if self.take("["):
            index = 0
            while self.match(_BLANK) is not None and not self.take("]"):
                self.found[(*path, index)] = self.at
                self.value((*path, index))
                index += 1
                self.match(_BLANK)
                self.take(",")
        elif self.take("{"):
            while self.match(_BLANK) is not None and not self.take("}"):
                self.pair(path)
                self.match(_BLANK)
                self.take(",")
        elif not self.match(_STRING):
            self.match(_ATOM)


def positions(text: str) -> dict[Path, tuple[int, int]]:
    """Map every path of a valid TOML text to (line, column), both from 1.

    A key's position is where it is written, a table's its header, an array element's the element.
    """
    starts = [0] + [m.end() for m in re.finditer("\n", text)]
    found = {}
    line = 0
    for path, offset in sorted(_Scanner(text).document().items(), key=lambda item: item[1]):
        while line + 1 < len(starts) and starts[line + 1] <= offset:
            line += 1
        found[path] = (line + 1, offset - starts[line] + 1)
    return found
