"""The kernels for TensorFlow."""

from __future__ import annotations

from functools import cache
from typing import Any

import tensorflow as tf

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.plain import (
    activate,
    average_pool,
    clip_all,
    dense,
    momentum_steps,
    scale_add,
    standardise,
    stored,
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
    "stored",
]


@cache
def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


MOST_GROUPS = 16  # each is an operation of its own, and NF-RegNets have dozens


def convolve(x: Any, kernel: Any, bias: Any, strides: int, padding: str, data_format: str) -> Any:
    """On CPU, grouped convs group by group: XLA's and TensorFlow's own take longer."""
    groups = x.shape[3] // kernel.shape[2] if data_format == "channels_last" else 1
    if groups == 1 or groups > MOST_GROUPS or not _on_cpu():
        return plain.convolve(x, kernel, bias, strides, padding, data_format)
    x, padding = plain.pad_image(x, kernel.shape[0], strides, padding, data_format, 0.0)
    parts = zip(tf.split(x, groups, 3), tf.split(kernel, groups, 3), strict=True)
    return tf.concat([tf.nn.conv2d(*part, strides, padding.upper()) for part in parts], 3) + bias


convolve_activated = plain.activated(convolve)
