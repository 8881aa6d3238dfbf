"""A network with the moving averages in place of its parameters, to be evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from nfspec.backends.optimizers import EMA
from nfspec.backends.optimizers.wrapper import first_of_kind


@contextlib.contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """With the moving averages in place of the parameters, where the optimizer keeps them."""
    average = first_of_kind(optimizer, EMA)
    pairs = average.averages if average is not None else []
    kept = [keras.ops.copy(variable) for variable, _ in pairs]
    for variable, value in pairs:
        variable.assign(value)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, kept, strict=True):
            variable.assign(value)
