"""A network's outputs for held-out images, and how many are right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
from numpy.typing import NDArray

from nfspec.backends.optimizers import EMA
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.training.scores import Score, score

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def evaluate(
    logits: Logits, held: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]], batch: int
) -> Score:
    """Score a network on batches of images; the last one is filled up, so as to compile once."""
    total = Score()
    for images, labels in held:
        rest = np.zeros((batch - len(images), *images.shape[1:]), np.float32)
        outputs = logits(np.concatenate([images, rest]) if len(rest) else images)
        total += score(outputs[: len(labels)], labels)
    return total


@contextlib.contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """With the moving averages in place of the parameters, where the optimizer keeps them."""
    average = first_of_kind(optimizer, EMA)
    pairs = average.averages if average is not None else []
    kept = [np.array(keras.ops.convert_to_numpy(variable)) for variable, _ in pairs]
    for variable, value in pairs:
        variable.assign(value)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, kept, strict=True):
            variable.assign(value)
