"""The recipe of a training: the spec's or nfspec's own, and the options that change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfspec.errors import InputError, SpecError
from nfspec.language.overrides import given
from nfspec.language.reading import Layer, read_layer
from nfspec.language.spec import Spec
from nfspec.language.validation import Key
from nfspec.wording import found_text, printable

DEFAULT = "nfspec/training/recipe.toml"


def default_for(spec: Spec) -> list[Layer]:
    """The layer of nfspec's own recipe for a spec without one; no layer for a spec that has one."""
    if spec.recipe is not None:
        return []
    path = Path(__file__).with_name("recipe.toml")
    layer = read_layer(path, DEFAULT, builtin=True)
    if spec.finetune is not None:
        layer = replace(layer, data={"recipe": layer.data["recipe"]})
    return [layer]


def read_recipe(path: Path) -> Layer:
    """A file of values to put over a spec's. Values outside any table belong to [recipe].

    Raises:
        SpecError: It cannot be read, or says something twice.
    """
    layer = read_layer(path, printable(str(path)), builtin=False)
    tables = Spec.model_fields.keys() | {"extends"}
    bare = {
        key: value
        for key, value in layer.data.items()
        if key not in tables and not isinstance(value, dict)
    }
    table = layer.data.get("recipe", {})
    if not isinstance(table, dict):
        message = f"expected a table; found {found_text(table)}"
        raise SpecError([layer.problem("SPEC-TYPE", ("recipe",), message)])
    if not bare:
        return layer
    if twice := sorted(bare.keys() & table.keys()):
        message = f'in [recipe] too; take one of the two "{twice[0]}" out'
        raise SpecError([layer.problem("SPEC-TOML", (twice[0],), message)])
    rest = {key: value for key, value in layer.data.items() if key not in bare}
    places: dict[Key, tuple[int, int]] = {
        ("recipe", *at) if at and at[0] in bare else at: place for at, place in layer.places.items()
    }
    return replace(layer, data=rest | {"recipe": table | bare}, places=places)


def asked_for(values: Mapping[str, tuple[Key, Any]]) -> list[Layer]:
    """The options that were given, each as a layer that bears its name.

    Args:
        values: Option to the path of a field and its value; None: not given.
    """
    chosen = {option: each for option, each in values.items() if each[1] is not None}
    return [given(option, {path: value}) for option, (path, value) in chosen.items()]


def clipping_of(value: float | str | None) -> list[Layer]:
    """The option --clipping as a layer: a number, as a text or not, or "none"."""
    if value is None:
        return []
    if value == "none":
        return [given("--clipping", {("agc", "enabled"): False})]
    try:
        value = float(value)
    except (ValueError, TypeError):
        raise InputError(f'--clipping: expected a number, or "none"; found "{value}"') from None
    return [given("--clipping", {("agc", "enabled"): True, ("agc", "clipping"): value})]


def fine_tuning(spec: Spec) -> list[Layer]:
    """The layer of a spec's [finetune], which changes its [recipe]."""
    if spec.finetune is None or spec.recipe is None:
        return []
    values = spec.finetune.model_dump(exclude={"freeze"})
    return [given("[finetune]", {("recipe", name): value for name, value in values.items()})]
