"""The kernels for TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.plain import (
    activate,
    assign_all,
    average_all,
    average_pool,
    dense,
    gated,
    scale_add,
    standardise,
    start_averages,
    uniform,
)
from nfspec.backends.kernels.plain_steps import decayed
from nfspec.plan.clipping import ClipRule

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


@cache
def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


MOST_GROUPS = 16  # each is an operation of its own, and NF-RegNets have dozens


def convolve(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: int,
    padding: str,
    data_format: str,
    dilation: int,
) -> Any:
    """On CPU, grouped convs group by group: XLA's and TensorFlow's own take longer."""
    groups = x.shape[3] // kernel.shape[2] if data_format == "channels_last" else 1
    if groups == 1 or groups > MOST_GROUPS or not _on_cpu():
        return plain.convolve(x, kernel, bias, strides, padding, data_format, dilation)
    kernel, bias = tf.cast(kernel, x.dtype), tf.cast(bias, x.dtype)
    size, how = plain.extent(kernel, dilation), {"dilations": dilation}
    x, padding = plain.pad_image(x, size, strides, padding, data_format, 0.0)
    parts = zip(tf.split(x, groups, 3), tf.split(kernel, groups, 3), strict=True)
    made = [tf.nn.conv2d(*part, strides, padding.upper(), **how) for part in parts]
    return tf.concat(made, 3) + bias


convolve_activated = plain.activated(convolve)


def clip_all(
    gradients: Sequence[Any], parameters: Sequence[Any], rules: Sequence[ClipRule]
) -> tuple[list[Any], list[Any]]:
    """On CPU, with the norms of all units in one vector.

    A tensor is then a dozen operations instead of three dozen: making and optimising the graph of
    a training step takes longer than to run it a few times.
    """
    dtypes = {plain.clip_dtype(parameter) for parameter in parameters}
    if len(dtypes) != 1 or any(rule.clipping is None for rule in rules) or not _on_cpu():
        return plain.clip_all(gradients, parameters, rules)
    (wide,) = dtypes
    units = [rule.units for rule in rules]

    @cache
    def integers(*values: int) -> Any:
        """Axes or a shape, as one constant wherever they are the same."""
        return tf.constant(values, "int32")

    def squares(x: Any, axes: tuple[int, ...] | None) -> Any:
        """The sum of each unit's squares, in a vector."""
        over, rank = tf.square(x), len(x.shape)
        if axes != ():
            axes = tuple(range(rank)) if axes is None else axes
            over = tf.reduce_sum(over, integers(*axes), keepdims=rank == 1)
        return over if len(over.shape) == 1 else tf.reshape(over, integers(-1))

    def norms(tensors: Sequence[Any]) -> Any:
        wides = [tf.cast(x, wide) for x in tensors]
        sums = [squares(x, rule.axes) for x, rule in zip(wides, rules, strict=True)]
        return tf.sqrt(tf.concat(sums, 0))

    def of_units(values: list[float | None]) -> Any:
        return tf.constant(np.repeat(np.array(values, wide), units))

    clipping, eps = of_units([r.clipping for r in rules]), of_units([r.eps for r in rules])
    scale, clipped = plain.scales(norms(gradients), norms(parameters), clipping, eps)
    scaled = [
        tf.cast(
            tf.cast(x, wide) * tf.reshape(part, integers(*plain.kept(x.shape, rule.axes))), x.dtype
        )
        for x, part, rule in zip(gradients, tf.split(scale, units), rules, strict=True)
    ]
    tensors = np.repeat(np.arange(len(units)), units)
    # Not `segment_sum`, which XLA does not have.
    counts = tf.math.unsorted_segment_sum(tf.cast(clipped, "float32"), tensors, len(units))
    return scaled, tf.unstack(counts / np.array(units, "float32"), len(units))


def momentum_steps(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Any],
    buffers: Sequence[Any],
    gradients: Sequence[Any],
    decays: Sequence[float],
    rate: Any,
    momentum: float,
    nesterov: bool,
) -> None:
    """On CPU, each as one operation, in place."""
    if tf.distribute.has_strategy() or not _on_cpu():
        plain.momentum_steps(
            optimizer, variables, buffers, gradients, decays, rate, momentum, nesterov
        )
        return
    gradients = decayed(gradients, variables, decays)
    dtypes = {gradient.dtype for gradient in gradients}
    numbers = {d: (tf.cast(rate, d), tf.constant(momentum, d)) for d in dtypes}
    for variable, buffer, gradient in zip(variables, buffers, gradients, strict=True):
        tf.raw_ops.ResourceApplyMomentum(
            var=_resource(variable),
            accum=_resource(buffer),
            lr=numbers[gradient.dtype][0],
            grad=gradient,
            momentum=numbers[gradient.dtype][1],
            use_nesterov=nesterov,
        )


def _resource(variable: Any) -> Any:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
