"""The plain kernels that act once a step on all variables: SGD, moving averages, assignments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def momentum_steps(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    buffers: Sequence[keras.Variable],
    gradients: Sequence[Any],
    decays: Sequence[float],
    rate: Any,
    momentum: float,
    nesterov: bool,
) -> None:
    """`buffer = momentum · buffer + gradient`, `variable -= rate · step`, one after another.

    The gradient has `decay · variable` added to it first. The step is the buffer, or gradient +
    momentum · buffer with Nesterov's momentum.

    Args:
        optimizer: Whose `assign` is used.
        variables, buffers: Arrays of one shape and dtype.
        gradients: In their dtype.
        decays: Weight decay of each variable.
        rate: A scalar.
    """
    gradients = decayed(gradients, variables, decays)
    for variable, buffer, gradient in zip(variables, buffers, gradients, strict=True):
        moved = momentum * buffer + gradient
        optimizer.assign(buffer, moved)
        step = gradient + momentum * moved if nesterov else moved
        optimizer.assign_sub(variable, ops.cast(rate, variable.dtype) * step)


def decayed(
    gradients: Sequence[Any], variables: Sequence[Any], decays: Sequence[float]
) -> list[Any]:
    """Gradients with `decay · variable` added to them."""
    return [
        gradient + decay * variable if decay else gradient
        for gradient, variable, decay in zip(gradients, variables, decays, strict=True)
    ]


def start_averages(
    optimizer: keras.optimizers.Optimizer,
    averages: Sequence[Any],
    variables: Sequence[Any],
    first: Any,
) -> None:
    """Let averages be their variables if `first`, a bool tensor, is true."""
    for average, variable in zip(averages, variables, strict=True):
        start, so_far = ops.convert_to_tensor(variable), ops.convert_to_tensor(average)
        optimizer.assign(average, ops.where(first, start, so_far))


def average_all(
    optimizer: keras.optimizers.Optimizer,
    averages: Sequence[Any],
    variables: Sequence[Any],
    decay: Any,
) -> None:
    """`average = decay · average + (1 - decay) · variable`; decay is a float32 scalar."""
    parts = {dtype: ops.cast(decay, dtype) for dtype in {v.dtype for v in variables}}
    # Once for all variables: on TensorFlow each would have operations of its own.
    pairs = {dtype: (kept, 1.0 - kept) for dtype, kept in parts.items()}
    for average, variable in zip(averages, variables, strict=True):
        kept, new = pairs[variable.dtype]
        optimizer.assign(average, average * kept + variable * new)


def assign_all(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], values: Sequence[Any]
) -> None:
    """Give variables their values, tensors of their shapes and dtypes."""
    for variable, value in zip(variables, values, strict=True):
        optimizer.assign(variable, value)
