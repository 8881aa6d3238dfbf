"""A network whose equal blocks are one loop, to see what that would save.

Blocks of a stage after its first have equal shapes. Here they are the body of `jax.lax.scan` over
their stacked parameters, with what differs between them, such as drop rates, stacked beside. The
backward pass keeps outputs of convs and products, which is about what XLA keeps of a network whose
blocks are computed one after another, and computes the rest again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
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
KEPT = ("conv_general_dilated", "dot_general")


def loops_of(model: Network) -> list[list[Region]]:
    """The blocks of a network in order; those that can be one loop are in one list."""
    loops: list[list[Region]] = []
    for region in regions_of(*steps_of(model), part_of(DEPTHS["block"])):
        joined = loops and region.again and loops[-1][-1].outputs == region.inputs
        if joined and _shape(loops[-1][-1]) == _shape(region):
            loops[-1].append(region)
        else:
            loops.append([region])
    return loops


def _shape(region: Region) -> list[Any]:
    """All that two blocks must have in common to be one body of a loop."""
    return [
        (
            type(layer),
            {key: value for key, value in layer.get_config().items() if key not in OWN},
            [v.shape for v in layer.trainable_variables],
            bool(getattr(layer, "rate", 0.0)),
        )
        for layer in (step.layer for step in region.steps)
    ]


def forward(model: Network, x: Any) -> Any:
    """The logits of a network in training, its equal blocks as loops.

    Args:
        model: A network on JAX, within a scope that has values for its variables.
        x: Images.
    """
    values = {0: x}
    for regions in loops_of(model):
        drawn = [_drawn(region, x.shape[0]) for region in regions]
        given = [values[number] for number in regions[0].inputs]
        if len(regions) > 1:
            found: Sequence[Any] = (_loop(regions, given[0], drawn),)
        else:
            found = _block(regions[0], given, drawn[0])
        values.update(zip(regions[-1].outputs, found, strict=True))
    return values[steps_of(model)[1][0]]


def _drawn(region: Region, images: int) -> list[Any]:
    """The numbers that decide what a block drops."""
    drops = [step.layer for step in region.steps if _drops(step.layer)]
    return [keras.random.uniform((images,), seed=drop.seed_generator) for drop in drops]


def _drops(layer: Any) -> bool:
    return isinstance(layer, Drop) and layer.per_image and bool(layer.rate)


def _block(region: Region, given: Sequence[Any], drawn: Sequence[Any]) -> list[Any]:
    values, draws = dict(zip(region.inputs, given, strict=True)), iter(drawn)
    for step in region.steps:
        read, layer = [values[number] for number in step.inputs], step.layer
        x = read[0] if len(read) == 1 else read
        if isinstance(layer, Drop) and layer.per_image:
            draw = next(draws, None)
            values[step.output] = x if draw is None else layer.drop(x, draw.reshape(layer.draws(x)))
        else:
            values[step.output] = layer(x, training=True) if isinstance(layer, Drop) else layer(x)
    return [values[number] for number in region.outputs]


def _kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in KEPT


def _loop(regions: Sequence[Region], x: Any, drawn: Sequence[Sequence[Any]]) -> Any:
    first = regions[0]
    parameters = [[v for s in r.steps for v in s.layer.trainable_variables] for r in regions]
    numbers = [_numbers(region) for region in regions]
    differ = [i for i, each in enumerate(zip(*numbers, strict=True)) if len({*_values(each)}) > 1]
    stacked = [jnp.stack([v.value for v in each]) for each in zip(*parameters, strict=True)]
    columns = [jnp.array([_values(row)[i] for row in numbers], "float32") for i in differ]
    draws = [jnp.stack(each) for each in zip(*drawn, strict=True)]

    @partial(jax.checkpoint, policy=_kept, prevent_cse=False)
    def body(x: Any, given: Any) -> tuple[Any, None]:
        arrays, scalars, drawn = given
        places = [numbers[0][i][:2] for i in differ]
        mapping = list(zip(parameters[0], arrays, strict=True))
        with keras.StatelessScope(mapping), _set(places, scalars):
            return _block(first, [x], drawn)[0], None

    return jax.lax.scan(body, x, (stacked, columns, draws))[0]


def _numbers(region: Region) -> list[tuple[Any, str, float]]:
    layers = [step.layer for step in region.steps]
    return [(each, n, getattr(each, n)) for each in layers for n in NUMBERS if hasattr(each, n)]


def _values(numbers: Sequence[tuple[Any, str, float]]) -> list[float]:
    return [value for _, _, value in numbers]


@contextmanager
def _set(places: Sequence[tuple[Any, str]], values: Sequence[Any]) -> Iterator[None]:
    """Set attributes of layers while a loop's body is traced."""
    before = [getattr(layer, name) for layer, name in places]
    try:
        for (layer, name), value in zip(places, values, strict=True):
            setattr(layer, name, value)
        yield
    finally:
        for (layer, name), value in zip(places, before, strict=True):
            setattr(layer, name, value)
