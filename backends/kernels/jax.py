"""The kernels for JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.jax_parts import parts
from nfspec.backends.kernels.plain import (
    activate,
    assign_all,
    average_all,
    average_pool,
    clip_all,
    momentum_steps,
    standardise,
    start_averages,
    uniform,
)
from nfspec.cost.rows import LANES

__all__ = [
    "activate",
    "assign_all",
    "average_all",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "gated",
    "momentum_steps",
    "scale_add",
    "standardise",
    "start_averages",
    "uniform",
]


def _affine(operation: Callable[[Any, Any], Any], x: Any, kernel: Any, bias: Any) -> Any:
    """`operation(x, kernel) + bias`, with the kernel and the bias rounded to x's dtype.

    Their gradients come in their own dtype. On several devices XLA adds gradients up over them
    where they are computed: in 16 bits that would be before the derivative of weight
    standardisation, and before AGC takes its norms. TPUs multiply in bfloat16 and add up in
    float32 in either case. GPUs would multiply in float32, which takes longer, so that there the
    kernel's gradient is computed in x's dtype.

    A kernel in parts is gathered for the operation; see `jax_parts`.

    Args:
        operation: Linear in both of its arguments.
        x, kernel, bias: Arrays; the bias has one axis.
    """
    spread = parts()
    if spread is None and x.dtype == kernel.dtype == bias.dtype:
        return operation(x, kernel) + bias

    def used(kernel: Any) -> Any:
        kernel = kernel.astype(x.dtype)
        return kernel if spread is None else spread.whole(kernel)

    def by_kernel(x: Any, change: Any) -> Any:
        shape = jax.ShapeDtypeStruct(kernel.shape, x.dtype)
        return jax.linear_transpose(lambda k: operation(x, k), shape)(change)[0]

    def wide(x: Any, change: Any) -> Any:
        return by_kernel(x.astype(kernel.dtype), change.astype(kernel.dtype))

    def narrow(x: Any, change: Any) -> Any:
        return by_kernel(x, change).astype(kernel.dtype)

    def summed(x: Any, change: Any) -> Any:
        return lax.platform_dependent(x, change, cuda=narrow, rocm=narrow, default=wide)

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def affine(x: Any, kernel: Any, bias: Any) -> Any:
        return operation(x, used(kernel)) + bias.astype(x.dtype)

    def forward(x: Any, kernel: Any, bias: Any) -> Any:
        narrow_kernel = used(kernel)
        return operation(x, narrow_kernel) + bias.astype(x.dtype), (x, narrow_kernel)

    def backward(kept: Any, change: Any) -> Any:
        x, narrow_kernel = kept
        (by_x,) = jax.linear_transpose(lambda x: operation(x, narrow_kernel), x)(change)
        if spread is None:
            of_kernel = summed(x, change)
        else:
            of_kernel = spread.summed(summed, kernel.shape, x, change)
        of_bias = jnp.sum(change, range(change.ndim - 1), bias.dtype)
        return by_x, of_kernel, of_bias

    affine.defvjp(forward, backward)
    return affine(x, kernel, bias)


MOST_GROUPS = 16  # each is a conv of its own to be compiled, and NF-RegNets have dozens


def convolve(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: int,
    padding: str,
    data_format: str,
    dilation: int,
) -> Any:
    """On CPU, 1x1 convs as matrix products and grouped convs group by group.

    XLA's CPU backend has no fast code for the gradients of either: the gradient by the kernel
    takes 3 and 20 times as long as here. The platform is that which a program is compiled or
    exported for, so that a program for several has the convs of each.
    """
    if data_format != "channels_last":
        return plain.convolve(x, kernel, bias, strides, padding, data_format, dilation)
    size, extent = kernel.shape[:2], plain.extent(kernel, dilation)
    x, padding = plain.pad_image(x, extent, strides, padding, data_format, 0.0)
    groups = x.shape[3] // kernel.shape[2]

    def conv(x: Any, kernel: Any, groups: int = groups) -> Any:
        return lax.conv_general_dilated(
            x,
            kernel,
            (strides, strides),
            padding.upper(),
            rhs_dilation=(dilation, dilation),
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
    on_cpu: Callable[[Any, Any], Any] = conv
    on_tpu: Callable[[Any, Any], Any] = conv
    if size == (1, 1) and groups == 1 and (strides == 1 or numbers):
        on_cpu = product
    elif 1 < groups <= MOST_GROUPS:
        on_cpu = by_groups
        # A group that fills a row of a TPU is as good as a conv; `benchmarks.grouped` compares. The
        # gradient of a kernel in parts would be put together from its groups, and then taken apart.
        on_tpu = by_groups if kernel.shape[2] >= LANES and parts() is None else conv

    def of_the_platform(x: Any, kernel: Any) -> Any:
        if on_cpu is conv:
            return conv(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=on_cpu, tpu=on_tpu, default=conv)

    return _affine(of_the_platform, x, kernel, bias)


convolve_activated = plain.activated(convolve)


def dense(x: Any, kernel: Any, bias: Any) -> Any:
    return _affine(jnp.matmul, x, kernel, bias)


def gated(x: Any, gate: Any) -> Any:
    """In float32, since the gate's gradient is a sum over the image."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(wide) * gate.astype(wide)).astype(x.dtype)


def scale_add(branch: Any, scale: Any, shortcut: Any) -> Any:
    """In the dtype of a learned scale, whose gradient is a sum over all images."""
    wide = branch.dtype if isinstance(scale, int | float) else scale.dtype
    return (branch.astype(wide) * scale + shortcut.astype(wide)).astype(branch.dtype)
