"""Read one spec file into a `Layer`: its data and their places, before its fields are checked.

Files from strangers end in a Layer or a SpecError, quickly: size, line shape, digits and nesting
are limited.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.errors import Problem, SpecError
from nfspec.files import opened
from nfspec.language.positions import positions
from nfspec.language.spec import SCHEMA
from nfspec.language.validation import Key, shown
from nfspec.wording import found_text

MAX_BYTES = 65_536
MAX_DOTS_IN_LINE = 256  # tomllib takes time quadratic in the parts of a dotted key
MAX_NESTING = 8

_LONG_NUMBER = re.compile(r"[0-9][0-9_]{4000}")  # Python reads no integer of over 4300 digits
_TUPLE = re.compile(r"\('(.+)'(?:,)?\)")  # how tomllib's messages write a dotted key
_PLAINER = {
    "Cannot overwrite a value": "a key or table is written twice",
    "Invalid value": "invalid value; a string needs quotes",
}


@dataclass(eq=False)
class Layer:
    """One file of an `extends` chain: its name in errors, its data, and their places.

    Two layers may bear one label (a file of the user's called as a built-in spec is), so they are
    told apart by identity.
    """

    label: str
    directory: Path | None  # paths in it are relative to this; None for a built-in spec
    size: int  # bytes
    data: dict[str, Any]
    places: dict[Key, tuple[int, int]]
    over: bool = False  # put over a spec by the caller of `load`, and no spec itself

    def problem(self, code: str, path: Key, message: str) -> Problem:
        """A problem at a path of this file, or at the nearest table around it."""
        around = (path[:n] for n in range(len(path), 0, -1) if path[:n] in self.places)
        line, column = self.places.get(next(around, ()), (1, 1))
        return Problem(code, shown(path), message, self.label, line, column)


def _fail(code: str, message: str, label: str, line: int = 0, column: int = 0) -> SpecError:
    return SpecError([Problem(code, "", message, label, line, column)])


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _text(path: Path, label: str) -> str:
    try:
        with opened(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _fail("SPEC-READ", f"cannot be read: {error.strerror}", label) from None
    except ValueError:
        raise _fail("SPEC-READ", "cannot be read: a null byte in its name", label) from None
    if len(raw) > MAX_BYTES:
        raise _fail("SPEC-LIMIT", f"longer than {MAX_BYTES} bytes, no spec needs that", label)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        raise _fail("SPEC-READ", "not UTF-8 text", label, *_place(before, len(before))) from None
    if text.startswith("\ufeff"):
        message = "begins with a byte order mark; save it as UTF-8 without one"
        raise _fail("SPEC-READ", message, label, 1, 1)
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS_IN_LINE:
            message = f"more than {MAX_DOTS_IN_LINE} dots in one line; break the line up"
            raise _fail("SPEC-LIMIT", message, label, number, 1)
    return text


def parse(text: str, label: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        SpecError: It is not TOML, or has a number of too many digits, or is nested too deep.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 puts the place into the message alone; `lineno` and `colno` come with 3.14.
        message, _, where = str(error).rpartition(" (at ")
        numbers = [int(word) for word in re.findall(r"\d+", where)]
        line, column = numbers if len(numbers) == 2 else _place(text, len(text))
        message = _PLAINER.get(message, message[:1].lower() + message[1:])
        message = _TUPLE.sub(lambda key: '"' + key[1].replace("', '", ".") + '"', message)[:200]
        raise _fail("SPEC-TOML", f"not TOML: {message}", label, line, column) from None
    except ValueError:
        number = _LONG_NUMBER.search(text)
        place = _place(text, number.start()) if number else (0, 0)
        raise _fail("SPEC-LIMIT", "a number of too many digits", label, *place) from None
    except RecursionError:
        raise _fail("SPEC-LIMIT", f"nested more than {MAX_NESTING} deep", label) from None


def read_layer(path: Path, label: str, *, builtin: bool) -> Layer:
    """Read one file, without its parents.

    Args:
        path: The file.
        label: Name that errors give it.
        builtin: It comes with nfspec, and extends nothing that does not.

    Raises:
        SpecError: Unreadable, too large, not TOML, or of another schema version.
    """
    text = _text(path, label)
    data = parse(text, label)
    directory = None if builtin else path.parent
    layer = Layer(label, directory, len(text.encode()), data, positions(text))
    deep = next((place for place in layer.places if len(place) > MAX_NESTING), None)
    if deep:
        message = f"nested more than {MAX_NESTING} deep"
        raise SpecError([layer.problem("SPEC-LIMIT", deep, message)])
    version = layer.data.get("schema", SCHEMA)
    if version != SCHEMA:
        message = f'this release reads "{SCHEMA}" only; found {found_text(version)}'
        raise SpecError([layer.problem("SPEC-SCHEMA", ("schema",), message)])
    return layer
