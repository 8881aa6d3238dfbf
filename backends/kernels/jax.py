"""The kernels for JAX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.plain import (
    activate,
    average_pool,
    clip_all,
    dense,
    momentum_steps,
    scale_add,
    standardise,
)

__all__ = [
    "activate",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "momentum_steps",
    "scale_add",
    "standardise",
]


MOST_GROUPS = 16  # each is a conv of its own to be compiled, and NF-RegNets have dozens


def convolve(x: Any, kernel: Any, bias: Any, strides: int, padding: str, data_format: str) -> Any:
    """On CPU, 1x1 convs as matrix products and grouped convs group by group.

    XLA's CPU backend has no fast code for the gradients of either: the gradient by the kernel
    takes 3 and 20 times as long as here. The platform is that which a program is compiled or
    exported for, so that a program for several has the convs of each.
    """
    if data_format != "channels_last":
        return plain.convolve(x, kernel, bias, strides, padding, data_format)
    x, padding = plain.pad_image(x, kernel.shape[0], strides, padding, data_format, 0.0)
    groups = x.shape[3] // kernel.shape[2]

    def conv(x: Any, kernel: Any, groups: int = groups) -> Any:
        return lax.conv_general_dilated(
            x,
            kernel,
            (strides, strides),
            padding.upper(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def product(x: Any, kernel: Any) -> Any:
        # Without padding: a window of 1 needs none, whatever the rule.
        return jnp.matmul(x[:, ::strides, ::strides], kernel[0, 0])

    def by_groups(x: Any, kernel: Any) -> Any:
        parts = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
        return jnp.concatenate([conv(*part, groups=1) for part in parts], axis=3)

    numbers = all(isinstance(side, int) for side in x.shape[1:3])
    # Of a side that is a symbol, a strided slice has another expression than a strided conv.
    if kernel.shape[:2] == (1, 1) and groups == 1 and (strides == 1 or numbers):
        return lax.platform_dependent(x, kernel, cpu=product, default=conv) + bias
    if 1 < groups <= MOST_GROUPS:
        return lax.platform_dependent(x, kernel, cpu=by_groups, default=conv) + bias
    return conv(x, kernel) + bias


convolve_activated = plain.activated(convolve)
