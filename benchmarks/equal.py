"""Equal blocks of a network: those that one program could compute, one after another.

Blocks of a stage after its first have equal shapes. `nfspec.benchmarks.scanned` makes loops of
them on JAX, `nfspec.benchmarks.reused` functions and loops on TensorFlow, to see what that saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from nfspec.backends.layers.drop import Drop
from nfspec.backends.network import Network
from nfspec.backends.steps import Region, part_of, regions_of, steps_of
from nfspec.plan.remat import DEPTHS

NUMBERS = (
    "gamma",
    "beta",
    "rate",
    "alpha",
)  # attributes of layers that differ between equal blocks
OWN = ("name", "canonical", "spec", "seed", *NUMBERS)


def equal_blocks(model: Network) -> list[list[Region]]:
    """The blocks of a network in order; those that are equal and follow each other in one list."""
    found: list[list[Region]] = []
    for region in regions_of(*steps_of(model), part_of(DEPTHS["block"])):
        joined = found and region.again and found[-1][-1].outputs == region.inputs
        if joined and _shape(found[-1][-1]) == _shape(region):
            found[-1].append(region)
        else:
            found.append([region])
    return found


def _shape(region: Region) -> list[Any]:
    """All that two blocks must have in common to be one program."""
    return [
        (
            type(layer),
            {key: value for key, value in layer.get_config().items() if key not in OWN},
            [v.shape for v in layer.trainable_variables],
            bool(getattr(layer, "rate", 0.0)),
        )
        for layer in (step.layer for step in region.steps)
    ]


def parameters(region: Region) -> list[keras.Variable]:
    """The parameters of a block, in an order that equal blocks share."""
    return [v for step in region.steps for v in step.layer.trainable_variables]


def drawn(region: Region, images: int) -> list[Any]:
    """The numbers that decide what a block drops."""
    drops = [step.layer for step in region.steps if _drops(step.layer)]
    return [keras.random.uniform((images,), seed=drop.seed_generator) for drop in drops]


def _drops(layer: Any) -> bool:
    return isinstance(layer, Drop) and layer.per_image and bool(layer.rate)


def block(region: Region, given: Sequence[Any], drawn: Sequence[Any]) -> list[Any]:
    """The outputs of a block in training.

    Args:
        region: The block.
        given: What it reads.
        drawn: The numbers that decide what it drops.
    """
    values, draws = dict(zip(region.inputs, given, strict=True)), iter(drawn)
    for step in region.steps:
        read, layer = [values[number] for number in step.inputs], step.layer
        x = read[0] if len(read) == 1 else read
        if isinstance(layer, Drop) and layer.per_image:
            draw = next(draws, None)
            shaped = None if draw is None else keras.ops.reshape(draw, layer.draws(x))
            values[step.output] = x if draw is None else layer.drop(x, shaped)
        else:
            values[step.output] = layer(x, training=True) if isinstance(layer, Drop) else layer(x)
    return [values[number] for number in region.outputs]


def numbers(region: Region) -> list[tuple[Any, str, float]]:
    """Layers of a block, names of their numbers, and the numbers."""
    layers = [step.layer for step in region.steps]
    return [(each, n, getattr(each, n)) for each in layers for n in NUMBERS if hasattr(each, n)]


def differing(regions: Sequence[Region]) -> tuple[list[tuple[Any, str]], list[list[float]]]:
    """The numbers that differ between equal blocks: their places in the first, and the numbers of
    each block."""
    rows = [[value for _, _, value in numbers(region)] for region in regions]
    differ = [i for i, column in enumerate(zip(*rows, strict=True)) if len({*column}) > 1]
    first = numbers(regions[0])
    return [first[i][:2] for i in differ], [[row[i] for i in differ] for row in rows]


@contextmanager
def given(
    region: Region, arrays: Sequence[Any], places: Sequence[tuple[Any, str]], values: Sequence[Any]
) -> Iterator[None]:
    """A block with other parameters and numbers while its program is traced."""
    before = [getattr(layer, name) for layer, name in places]
    try:
        for (layer, name), value in zip(places, values, strict=True):
            setattr(layer, name, value)
        with keras.StatelessScope(list(zip(parameters(region), arrays, strict=True))):
            yield
    finally:
        for (layer, name), value in zip(places, before, strict=True):
            setattr(layer, name, value)
