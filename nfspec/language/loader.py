"""From a name or a file to a `Spec`: `extends`, merging, and errors with their places.

A file may extend one parent, a built-in spec by name or a file by path. Tables merge, everything
else replaces. Whatever is in the files, and whoever wrote them, ends in a Spec or a SpecError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nfspec.arguments import refuse
from nfspec.errors import Problem, SpecError, suggest
from nfspec.files import opened
from nfspec.language.expansion import expanded
from nfspec.language.overrides import overriding
from nfspec.language.reading import MAX_BYTES, Layer, read_layer
from nfspec.language.spec import NOT_INHERITED, SCHEMA, Origin, Spec
from nfspec.language.validation import Finding, Key, field_count, findings
from nfspec.plan import resolver
from nfspec.wording import found_text, printable, quoted

__all__ = ["VARIANTS", "Layer", "dialects", "layers", "load", "merge", "read_layer", "variants"]

VARIANTS = Path(__file__).parent.parent / "variants"
MAX_EXTENDS = 16  # files in a chain, the first one included
MAX_PROBLEMS = 100
MAX_MISSING = 20


@cache
def _builtin() -> dict[str, Path]:
    """Name to file of each spec that comes with nfspec; a dialect's name has no folder."""
    files = (p.relative_to(VARIANTS) for p in VARIANTS.rglob("*.toml"))
    return {p.with_suffix("").as_posix().removeprefix("dialects/"): VARIANTS / p for p in files}


def _natural(name: str) -> tuple[bool, str, str, int]:
    letters, digits, rest = re.split(r"(\d+|$)", name, maxsplit=1)
    return not name.startswith("nfnet-"), letters, rest, int(digits or 0)


def dialects() -> tuple[str, ...]:
    """Names of the base specs that fix one implementation's conventions."""
    return tuple(sorted(n for n, path in _builtin().items() if path.parent.name == "dialects"))


def variants() -> tuple[str, ...]:
    """Names of the built-in networks, as `load` takes them."""
    return tuple(sorted(_builtin().keys() - set(dialects()), key=_natural))


def _unknown_name(name: str) -> str:
    hint = suggest(name, (*variants(), *dialects())) or "; a file's path ends in .toml"
    return f"no built-in spec {quoted(name)}{hint}"


def _bad_extends(layer: Layer, message: str) -> SpecError:
    return SpecError([layer.problem("SPEC-EXTENDS", ("extends",), message)])


def _parent_file(layer: Layer, name: str, root: Path) -> Path:
    """The file that a layer extends by path; all of a chain are in the folder `root`."""
    if layer.directory is None:
        raise _bad_extends(layer, "a built-in spec extends built-in specs only")
    if Path(name).is_absolute():
        raise _bad_extends(layer, f"{quoted(name)} is not a path relative to this file")
    hint = suggest(name.removesuffix(".toml"), (*variants(), *dialects()))
    missing = _bad_extends(layer, f"no file {quoted(name)} beside this one{hint}")
    try:
        path = (layer.directory / name).resolve()
        there = path.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a null byte
        raise missing from None
    if not path.is_relative_to(root.resolve()):
        message = f"{quoted(name)} is outside the folder of the spec that was loaded"
        raise _bad_extends(layer, message)
    if not there:
        raise missing
    try:
        opened(path).close()
    except OSError as error:
        raise _bad_extends(layer, f"{quoted(name)} cannot be read: {error.strerror}") from None
    return root / path.relative_to(root.resolve())


def _parent(layer: Layer, root: Path) -> str | Path | None:
    """The spec that a layer extends: a built-in one's name, a file's path, or None."""
    name = layer.data.get("extends")
    if name is None or (isinstance(name, str) and name in _builtin()):
        return name
    if not isinstance(name, str):
        message = "expected the name of a built-in spec or the path of a .toml file"
        raise _bad_extends(layer, f"{message}; found {found_text(name)}")
    if not name.endswith(".toml"):
        raise _bad_extends(layer, _unknown_name(name))
    return _parent_file(layer, name, root)


def _open(target: str | Path) -> Layer:
    if isinstance(target, str):
        return read_layer(_builtin()[target], f"{target}.toml", builtin=True)
    return read_layer(target, printable(str(target)), builtin=False)


def _chain(source: str | Path) -> tuple[list[Layer], list[Problem]]:
    """A chain as far as it can be read, the base first, and the problems that end it."""
    first = str(source) if str(source) in _builtin() else Path(source)
    if isinstance(first, Path) and first.suffix != ".toml":
        raise SpecError([Problem("SPEC-NAME", "", _unknown_name(str(source)))])
    targets, chain = [first], [_open(first)]
    problems: list[Problem] = []
    try:
        while (target := _parent(chain[-1], Path(source).parent)) is not None:
            if target in targets:
                message = "a spec cannot extend itself, nor one that extends it"
                raise _bad_extends(chain[-1], message)
            if len(chain) == MAX_EXTENDS:
                raise _bad_extends(chain[-1], f"a chain of more than {MAX_EXTENDS} specs")
            layer = _open(target)
            if layer.directory and sum(each.size for each in (*chain, layer)) > MAX_BYTES:
                message = f"longer than {MAX_BYTES} bytes with what extends it"
                raise SpecError([Problem("SPEC-LIMIT", "", message, layer.label)])
            targets.append(target)
            chain.append(layer)
    except SpecError as error:
        problems += error.problems
    message = f'missing; the first line of a spec is schema = "{SCHEMA}"'
    unversioned = (layer for layer in chain if "schema" not in layer.data)
    problems += (layer.problem("SPEC-SCHEMA", ("schema",), message) for layer in unversioned)
    return chain[::-1], problems


def _leaves(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[Key, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _spec_of(chain: list[Layer]) -> Layer:
    """The spec that was asked for, without the layers put over it."""
    return [layer for layer in chain if not layer.over][-1]


def merge(chain: list[Layer]) -> tuple[dict[str, Any], dict[Key, Layer]]:
    """Merge a chain, base first: the flat meaning, and which layer each value or table is from.

    `name` and `source` are never inherited, but may be put over a spec; `extends` is used up.
    """
    merged: dict[Any, Any] = {"schema": SCHEMA}
    spec = _spec_of(chain)
    owner: dict[Key, Layer] = {}
    for layer in chain:
        for path, value in _leaves(layer.data):
            own = layer is spec or layer.over
            if path[0] == "extends" or (path[0] in NOT_INHERITED and not own):
                continue
            tables = path if value == {} else path[:-1]
            inner = merged
            for n, key in enumerate(tables, 1):
                if not isinstance(inner.get(key), dict):
                    inner[key] = {}
                inner = inner[key]
                owner[path[:n]] = layer
            if value != {}:
                inner[path[-1]] = _frozen(value)
                owner[path] = layer
    return merged, owner


def layers(source: str | Path) -> list[Layer]:
    """Read a spec and the specs that it extends, the base first.

    Raises:
        SpecError: As `load`, for anything found before the fields are looked at.
    """
    chain, problems = _chain(source)
    if problems:
        raise SpecError(problems)
    return chain


def _written(path: Key, owner: dict[Key, Layer]) -> Key:
    """The path that was written: of the value, or of the nearest array or table around it."""
    return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in owner), ())


def _without(table: dict[str, Any], path: Key) -> dict[str, Any]:
    """Copy a table but for the value at a path."""
    if len(path) == 1:
        return {key: value for key, value in table.items() if key != path[0]}
    return {k: _without(v, path[1:]) if k == path[0] else v for k, v in table.items()}


def _missing(absent: list[Finding], chain: list[Layer]) -> list[Problem]:
    own = [f for f in absent if f.path[0] in NOT_INHERITED]
    inherited = [f for f in absent if f not in own]
    count = sum(field_count(f.path) for f in inherited)
    if "extends" in chain[0].data:  # a parent that could not be read, which may have them
        inherited = []
    elif count > MAX_MISSING:
        message = f'{count} fields are missing; start from a base, such as extends = "deepmind"'
        inherited = [Finding("SPEC-MISSING", (), message)]
    return [_spec_of(chain).problem(*finding) for finding in own + inherited]


def _check(
    chain: list[Layer], problems: list[Problem], stand_ins: frozenset[Key] = frozenset()
) -> Spec | None:
    """Add the problems with the fields of a chain to `problems`.

    A bad value is reported and left out, and the rest is checked with the parent's value in its
    place, so that one mistake does not hide another. `stand_ins` are the paths of such values.
    """
    merged, owner = merge(chain)
    try:
        spec = Spec.model_validate(merged)
    except ValidationError as error:
        wrong = list(islice(findings(error, merged), MAX_PROBLEMS))
        total = error.error_count()
    else:
        spec._origins.update(_origins(chain, owner))
        over = [layer.label for layer in reversed(chain) if layer.over]
        spec._files = (*over, _spec_of(chain).label)
        try:
            resolver.resolve(spec, stand_ins)
        except SpecError as error:
            problems += error.problems
        return spec
    bad = {f: _written(f.path, owner) for f in wrong if f.code != "SPEC-MISSING"}
    problems += (owner[at].problem(*f) for f, at in bad.items() if at not in stand_ins)
    if total > MAX_PROBLEMS:
        message = f"{total} problems, of which {MAX_PROBLEMS} are listed"
        problems.append(chain[-1].problem("SPEC-LIMIT", (), message))
        return None
    if not bad:
        problems += _missing([f for f in wrong if f.path not in stand_ins], chain)
        return None
    rest = list(chain)
    for at in set(bad.values()):
        n = chain.index(owner[at])
        rest[n] = replace(rest[n], data=_without(rest[n].data, at))
    return _check(rest, problems, stand_ins | set(bad.values()))


def _not_replaced(layer: Layer) -> list[Problem]:
    """The problems with a layer that replaces what it cannot."""
    if not layer.size:  # of values that are in no file
        message = "the spec that is changed cannot have another parent; load one that has it"
        return [layer.problem("SPEC-EXTENDS", ("extends",), message)] * ("extends" in layer.data)
    message = "a file that replaces values has no name and no parent"
    wrong = (key for key in ("extends", *NOT_INHERITED) if key in layer.data)
    return [layer.problem("SPEC-EXTENDS", (key,), message) for key in wrong]


def load(source: str | Path, over: Mapping[str, Any] | Sequence[Layer] = ()) -> Spec:
    """Load and check a spec.

    Args:
        source: The name of a built-in spec (`nfspec.variants()`), or the path of a .toml file.
        over: Values that replace some of its own, such as `{"stages.alpha": 0.3, "head.classes":
            10}`; or layers of such values, the strongest last: see `read_layer` and `given`. The
            spec keeps its name, unless "name" is one of the values; its digest is another one.

    Returns:
        The spec, every field stated, known to resolve.

    Raises:
        SpecError: With every problem at once.
        InputError: The source is neither text nor a path, or a value is nothing that TOML has.
    """
    if not isinstance(source, str | Path):
        raise refuse("source", "the name of a built-in spec, or the path of a .toml file", source)
    chain, problems = _chain(source)
    for layer in overriding(over) if isinstance(over, Mapping) else over:
        problems += _not_replaced(layer)
        chain.append(replace(layer, over=True))
    chain, wrong_names, stand_ins = expanded(chain)
    problems += wrong_names
    spec = _check(chain, problems, stand_ins)
    if spec is None or problems:
        ranks = {layer.label: n for n, layer in enumerate(reversed(chain))}
        places = {p: (ranks.get(p.file, len(ranks)), p.line, p.column) for p in problems}
        raise SpecError(sorted(places, key=lambda p: places[p]))
    return spec


def _origins(chain: list[Layer], owner: dict[Key, Layer]) -> dict[Key, Origin]:
    return {
        place: Origin(layer.label, line, column)
        for layer in chain
        for place, (line, column) in layer.places.items()
        if owner.get(_written(place, owner)) is layer
    }
