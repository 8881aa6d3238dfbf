"""A network whose equal blocks are one loop, to see what that would save on JAX.

They are the body of `jax.lax.scan` over their stacked parameters, with what differs between them,
such as drop rates, stacked beside. The backward pass keeps outputs of convs and products, which is
about what XLA keeps of a network whose blocks are computed one after another, and computes the rest
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nfspec.backends.network import Network
from nfspec.backends.steps import Region, steps_of
from nfspec.benchmarks import equal

KEPT = ("conv_general_dilated", "dot_general")


def forward(model: Network, x: Any) -> Any:
    """The logits of a network in training, its equal blocks as loops.

    Args:
        model: A network on JAX, within a scope that has values for its variables.
        x: Images.
    """
    values = {0: x}
    for regions in equal.equal_blocks(model):
        drawn = [equal.drawn(region, x.shape[0]) for region in regions]
        given = [values[number] for number in regions[0].inputs]
        if len(regions) > 1:
            found: Sequence[Any] = (_loop(regions, given[0], drawn),)
        else:
            found = equal.block(regions[0], given, drawn[0])
        values.update(zip(regions[-1].outputs, found, strict=True))
    return values[steps_of(model)[1][0]]


def _kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in KEPT


def _loop(regions: Sequence[Region], x: Any, drawn: Sequence[Sequence[Any]]) -> Any:
    first = regions[0]
    parameters = [equal.parameters(region) for region in regions]
    places, rows = equal.differing(regions)
    stacked = [jnp.stack([v.value for v in each]) for each in zip(*parameters, strict=True)]
    columns = [jnp.array(column, "float32") for column in zip(*rows, strict=True)]
    draws = [jnp.stack(each) for each in zip(*drawn, strict=True)]

    @partial(jax.checkpoint, policy=_kept, prevent_cse=False)
    def body(x: Any, given: Any) -> tuple[Any, None]:
        arrays, scalars, drawn = given
        with equal.given(first, arrays, places, scalars):
            return equal.block(first, [x], drawn)[0], None

    return jax.lax.scan(body, x, (stacked, columns, draws))[0]
