"""Differences between two specs, field by field, after the specs that they extend are merged in.

A column written as one value and the same column at full length are the same. `name`, `source` and
the schema's version are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nfspec.errors import SpecError
from nfspec.language.expansion import expanded
from nfspec.language.loader import layers, load, merge
from nfspec.language.reading import Layer
from nfspec.language.spec import SCALAR_COLUMNS, WS_COLUMNS, Spec

Path = tuple[str, ...]

NOT_COMPARED = ("schema", "name", "source")
COLUMNS = {("stages", name) for name in (*SCALAR_COLUMNS, "beta")} | {
    ("stem", "kernel"),
    ("stem", "stride"),
    *(("ws", name) for name in WS_COLUMNS),
}


@dataclass(frozen=True)
class Difference:
    """A field that two specs do not agree on; None on the side that does not state it."""

    path: Path
    a: Any
    b: Any


def fields(data: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Flatten nested tables to path and value. Empty tables stay, values of None go."""
    flat: dict[Path, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= fields(value, (*path, key))
        elif value is not None:
            flat[(*path, key)] = value
    return flat


def spec_fields(spec: Spec) -> dict[Path, Any]:
    """Every field of a spec, in the order of the language."""
    return fields(spec.model_dump(by_alias=True))


def read(source: str, over: Sequence[Layer] = ()) -> tuple[dict[Path, Any], Spec | None]:
    """Read a spec, or a base spec that leaves fields to those that extend it.

    Args:
        source: A name or a path, as `nfspec.load` takes it, or the name of a dialect.
        over: Layers that replace some of its values.

    Returns:
        The fields, and the spec if they make a whole one.

    Raises:
        SpecError: Something is wrong with it other than fields it does not state.
    """
    try:
        spec = load(source, over)
    except SpecError as error:
        if any(problem.code != "SPEC-MISSING" for problem in error.problems):
            raise
        chain = [*layers(source), *(replace(layer, over=True) for layer in over)]
        return fields(merge(expanded(chain).chain)[0]), None
    return spec_fields(spec), spec


def _collapsed(value: Any) -> Any:
    """A column with one and the same value all along as that value."""
    if not isinstance(value, tuple):
        return value
    values = tuple(map(_collapsed, value))
    return values[0] if values and values.count(values[0]) == len(values) else values


def meanings(given: Mapping[Path, Any]) -> dict[Path, Any]:
    """The fields that are compared, each as what it means: see the module."""
    return {
        path: _collapsed(value) if path in COLUMNS else value
        for path, value in given.items()
        if path[0] not in NOT_COMPARED
    }


def differences(a: Mapping[Path, Any], b: Mapping[Path, Any]) -> list[Difference]:
    """Compare two specs' fields; tables stay together, in the order of the language."""
    left, right = meanings(a), meanings(b)
    tables = [field.alias or name for name, field in Spec.model_fields.items()]
    differing = [
        Difference(path, a.get(path), b.get(path))
        for path in dict.fromkeys((*left, *right))
        if {} not in (a.get(path), b.get(path)) and left.get(path) != right.get(path)
    ]
    return sorted(differing, key=lambda difference: tables.index(difference.path[0]))


def same(a: Spec, b: Spec) -> bool:
    """Tell whether two specs agree in every field that is compared."""
    return meanings(spec_fields(a)) == meanings(spec_fields(b))
