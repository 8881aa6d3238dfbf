"""From a name or a file to a `Spec`: reading, `extends`, merging, and errors that say where.

A file may extend one parent, a built-in spec by name or a file by path. Tables merge, everything
else replaces. Files from strangers end in a Spec or a SpecError, quickly: size, line shape, nesting
and totals are limited.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nfspec import resolver
from nfspec.errors import Problem, SpecError, suggest
from nfspec.positions import positions
from nfspec.spec import SCHEMA, Origin, Spec
from nfspec.validation import problems_of, shown

VARIANTS = Path(__file__).parent / "variants"
MAX_BYTES = 65_536
MAX_DOTS_IN_LINE = 256  # tomllib takes time quadratic in the parts of a dotted key
MAX_NESTING = 8
MAX_EXTENDS = 16

Key = tuple[str | int, ...]


@dataclass
class Layer:
    """One file of an `extends` chain: how errors name it, what it says, and where."""

    label: str
    directory: Path | None  # None for a built-in spec
    data: dict[str, Any]
    places: dict[Key, tuple[int, int]]

    def problem(self, code: str, path: Key, message: str) -> Problem:
        line, column = (1, 1)
        for n in range(len(path), 0, -1):
            if path[:n] in self.places:
                line, column = self.places[path[:n]]
                break
        return Problem(code, shown(path), message, self.label, line, column)


def _builtin(folder: Path) -> dict[str, Path]:
    return {str(p.relative_to(folder).with_suffix("")): p for p in sorted(folder.rglob("*.toml"))}


def dialects() -> tuple[str, ...]:
    """Names of the base specs that fix one implementation's conventions."""
    return tuple(_builtin(VARIANTS / "dialects"))


def _family_order(name: str) -> tuple[bool, str, int, str]:
    stem = name.removeprefix("timm/")
    letters = stem.rstrip("+paper").rstrip("0123456789+")
    digits = "".join(c for c in stem.removeprefix(letters) if c.isdigit())
    return name.startswith("timm/"), letters, int(digits or 0), stem


def variants() -> tuple[str, ...]:
    """Names of the built-in networks, as `load` takes them."""
    names = _builtin(VARIANTS)
    return tuple(sorted((n for n in names if not n.startswith("dialects/")), key=_family_order))


def _builtin_path(name: str) -> Path | None:
    if name in dialects():
        return VARIANTS / "dialects" / f"{name}.toml"
    return VARIANTS / f"{name}.toml" if name in variants() else None


def _fail(code: str, message: str, label: str = "", line: int = 0, column: int = 0) -> SpecError:
    return SpecError([Problem(code, "", message, label, line, column)])


def _text(path: Path, label: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _fail("SPEC-READ", f"cannot be read: {error.strerror}", label) from None
    if len(raw) > MAX_BYTES:
        raise _fail("SPEC-LIMIT", f"longer than {MAX_BYTES} bytes, no spec needs that", label)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _fail("SPEC-READ", "not UTF-8 text", label, line, column) from None
    for number, line_text in enumerate(text.split("\n"), 1):
        if line_text.count(".") > MAX_DOTS_IN_LINE:
            message = f"more than {MAX_DOTS_IN_LINE} dots in one line; break the line up"
            raise _fail("SPEC-LIMIT", message, label, number, 1)
    return text


def _parse(text: str, label: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 puts the place into the message alone; `lineno` and `colno` come with 3.14.
        message, _, place = str(error).rpartition(" (at ")
        numbers = [int(word) for word in place.strip(")").replace(",", "").split() if word.isdigit()]
        line, column = numbers if len(numbers) == 2 else (text.count("\n") + 1, 1)
        message = message or str(error)
        raise _fail("SPEC-TOML", f"not TOML: {message[0].lower()}{message[1:]}", label, line, column) from None
    except ValueError:
        raise _fail("SPEC-LIMIT", "a number with more digits than can be read", label) from None
    except RecursionError:
        raise _fail("SPEC-LIMIT", f"nested more than {MAX_NESTING} deep", label) from None


def _nesting(value: Any) -> int:
    deepest, stack = 0, [(value, 0)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict):
            stack += [(v, depth + 1) for v in item.values()]
        elif isinstance(item, list):
            stack += [(v, depth + 1) for v in item]
    return deepest


def read_layer(path: Path, label: str, *, builtin: bool) -> Layer:
    """Read one file, without its parents.

    Raises:
        SpecError: Unreadable, too large, not TOML, or of another schema version.
    """
    text = _text(path, label)
    data = _parse(text, label)
    if _nesting(data) > MAX_NESTING:
        raise _fail("SPEC-LIMIT", f"nested more than {MAX_NESTING} deep", label)
    layer = Layer(label, None if builtin else path.parent, data, positions(text))
    version = data.get("schema")
    if version is None:
        message = f'missing; the first line of a spec is schema = "{SCHEMA}"'
        raise SpecError([layer.problem("SPEC-SCHEMA", ("schema",), message)])
    if version != SCHEMA:
        message = f'found {version!r}, and this release reads "{SCHEMA}" only'
        raise SpecError([layer.problem("SPEC-SCHEMA", ("schema",), message)])
    return layer


def _parent(layer: Layer, root: Path | None) -> tuple[Path, str, bool] | None:
    """The file that a layer extends, its label, and whether it is built in."""
    name = layer.data.get("extends")
    if name is None:
        return None

    def fail(message: str) -> SpecError:
        return SpecError([layer.problem("SPEC-EXTENDS", ("extends",), message)])

    if not isinstance(name, str):
        raise fail("expected the name of a built-in spec, or the path of a .toml file")
    if (builtin := _builtin_path(name)) is not None:
        return builtin, f"{name}.toml", True
    if not name.endswith(".toml"):
        raise fail(f'no built-in spec "{name[:100]}"{suggest(name, (*variants(), *dialects()))}')
    if layer.directory is None or root is None:
        raise fail("a built-in spec extends built-in specs only")
    if Path(name).is_absolute() or "\0" in name:
        raise fail(f'"{name[:100]}" is not a path relative to this file')
    path = (layer.directory / name).resolve()
    if not path.is_relative_to(root):
        raise fail(f'"{name[:100]}" is outside the folder of the spec that was loaded')
    if not path.is_file():
        raise fail(f'no file "{name[:100]}" beside this one')
    return path, str(path.relative_to(root)), False


def layers(source: str | Path) -> list[Layer]:
    """Read a spec and what it extends, the base first.

    Raises:
        SpecError: As `load`, for anything found before the fields are looked at.
    """
    builtin = _builtin_path(source) if isinstance(source, str) else None
    path = builtin or Path(source)
    if builtin is None and path.suffix != ".toml":
        known = (*variants(), *dialects())
        message = f'no built-in spec "{source}"{suggest(str(source), known)}'
        raise _fail("SPEC-NAME", f"{message}; a file's path ends in .toml")
    label = f"{source}.toml" if builtin else str(source)
    found = [read_layer(path, label, builtin=builtin is not None)]
    seen = {path.resolve()}
    root = None if builtin else path.resolve().parent
    while (parent := _parent(found[-1], root)) is not None:
        path, label, is_builtin = parent
        if path in seen or len(found) >= MAX_EXTENDS:
            message = "extends itself" if path in seen else f"more than {MAX_EXTENDS} deep"
            raise SpecError([found[-1].problem("SPEC-EXTENDS", ("extends",), message)])
        seen.add(path)
        found.append(read_layer(path, label, builtin=is_builtin))
    return found[::-1]


def _leaves(value: Any, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
        if value or not path:
            return
    yield path, value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def merge(chain: list[Layer]) -> tuple[dict[str, Any], dict[Key, Layer]]:
    """Merge a chain, base first: the flat meaning, and which layer each leaf is from.

    `name` and `source` are never inherited; `extends` is used up.
    """
    merged: dict[str, Any] = {}
    owner: dict[Key, Layer] = {}
    for layer in chain:
        for path, value in _leaves(layer.data):
            if path[0] == "extends" or (path[0] in ("name", "source") and layer is not chain[-1]):
                continue
            table = merged
            for n, key in enumerate(path[:-1], 1):
                if not isinstance(table.get(key), dict):
                    table[key] = {}
                table = table[key]
                owner[path[:n]] = layer
            if isinstance(value, dict) and isinstance(table.get(path[-1]), dict):
                continue
            table[path[-1]] = _frozen(value)
            owner[path] = layer
    return merged, owner


def _written(path: Key, owner: dict[Key, Layer], leaf: Layer) -> tuple[Layer, Key]:
    """The layer that wrote a path, or the nearest value or table around it, and that path."""
    for n in range(len(path), 0, -1):
        if (layer := owner.get(path[:n])) is not None:
            return layer, path[:n]
    return leaf, ()


def _without(chain: list[Layer], layer: Layer, path: Key) -> list[Layer]:
    """The chain with the value at a path left out of a layer, so that an inherited one shows."""

    def copy(table: dict[str, Any], rest: Key) -> dict[str, Any]:
        if len(rest) == 1:
            return {k: v for k, v in table.items() if k != rest[0]}
        return {k: copy(v, rest[1:]) if k == rest[0] else v for k, v in table.items()}

    smaller = replace(layer, data=copy(layer.data, path))
    return [smaller if other.label == layer.label else other for other in chain]


def load(source: str | Path) -> Spec:
    """Load and check a spec.

    Args:
        source: The name of a built-in spec (`nfspec.variants()`), or the path of a .toml file.

    Returns:
        The spec, every field stated, known to resolve.

    Raises:
        SpecError: With everything that is wrong at once.
    """
    chain = layers(source)
    leaf = chain[-1]
    problems: list[Problem] = []
    bad: set[Key] = set()
    # A bad value is reported and left out, and the rest checked with what the parent says instead,
    # so that one mistake does not hide another.
    for _ in range(64):
        merged, owner = merge(chain)
        try:
            spec = Spec.model_validate(merged)
        except ValidationError as error:
            found = [(path, p) for path, p in problems_of(error, merged) if path not in bad]
            bad.update(path for path, _ in found)
            for path, problem in found:
                layer, at = _written(path, owner, leaf)
                problems.append(layer.problem(problem.code, path, problem.message))
                if problem.code != "SPEC-MISSING":
                    newest = next(other for other in chain if other.label == layer.label)
                    chain = _without(chain, newest, at)
            if all(problem.code == "SPEC-MISSING" for _, problem in found):
                raise SpecError(_ordered(problems, leaf)) from None
            continue
        break
    else:
        raise SpecError(_ordered(problems, leaf))
    spec._origins.update(_origins(chain, owner))
    try:
        resolver.resolve(spec)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(_ordered(problems, leaf))
    return spec


def _ordered(problems: list[Problem], leaf: Layer) -> list[Problem]:
    """In the order of the file that was loaded, then its parents'."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file != leaf.label, p.file, p.line, p.column))


def _origins(chain: list[Layer], owner: dict[Key, Layer]) -> dict[Key, Origin]:
    return {
        place: Origin(layer.label, line, column)
        for layer in chain
        for place, (line, column) in layer.places.items()
        if _written(place, owner, chain[-1])[0].label == layer.label
    }
