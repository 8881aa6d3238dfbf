"""The recipe of a training: the spec's or nfspec's own, and the options that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfspec.errors import InputError, SpecError
from nfspec.language.overrides import given
from nfspec.language.reading import Layer, read_layer
from nfspec.language.spec import Spec
from nfspec.language.tables import Finetune, Recipe
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


def suited(
    spec: Spec, published: Recipe | Finetune, images: int, asked: Sequence[Layer]
) -> tuple[list[Layer], list[str]]:
    """The values of a recipe that do not suit the data or the length of a run, replaced.

    A batch of more images than there are becomes the largest power of two of which an epoch has
    four. A warm-up that would take more than half of a shortened run keeps its share of the
    published epochs. What somebody asked for stays.

    Args:
        spec: The spec, with the recipe that the run would have.
        published: The recipe before somebody asked for anything.
        images: Number of images to train on.
        asked: The values that somebody asked for.

    Returns:
        A layer with these values, or none, and a line on each.
    """
    recipe = spec.recipe
    assert recipe is not None
    given_fields = {name for layer in asked for name in layer.data.get("recipe", {})}
    values: dict[Key, Any] = {}
    lines: list[str] = []
    if "batch" not in given_fields and recipe.batch > images:
        batch = 2 ** max(0, (images // 4).bit_length() - 1)
        values["recipe", "batch"] = batch
        lines.append(
            f"batch: {batch}, because the recipe's {recipe.batch:,} images are more than the "
            f"{images:,} of the data; --batch takes another"
        )
    long = 2 * recipe.warmup_epochs > recipe.epochs < published.epochs
    if long and "warmup_epochs" not in given_fields:
        warmup = published.warmup_epochs * recipe.epochs / published.epochs
        values["recipe", "warmup_epochs"] = warmup
        lines.append(
            f"warm-up: {warmup:.3g} epochs, the share that the recipe's "
            f"{published.warmup_epochs:g} have of {published.epochs}; --warmup takes another"
        )
    return [given("the data", values)] if values else [], lines
