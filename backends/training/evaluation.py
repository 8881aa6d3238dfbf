"""A network's outputs for held-out images, and how many are right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from nfspec.backends.optimizers import EMA
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.training.scores import Score, score

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def logits_function(network: keras.Model) -> Logits:
    """A network's outputs with its parameters as they are at each call.

    Jitted on JAX, a graph on TensorFlow, eager on PyTorch.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jitted = jax.jit(lambda t, r, x: network.stateless_call(t, r, x, training=False)[0])

        def call(x: Any) -> Any:
            trained = [v.value for v in network.trainable_variables]
            return jitted(trained, [v.value for v in network.non_trainable_variables], x)

    elif backend == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: network(x, training=False), autograph=False)
    else:
        import torch

        call = torch.inference_mode()(lambda x: network(x, training=False))
    return lambda x: keras.ops.convert_to_numpy(call(keras.ops.convert_to_tensor(x)))


def evaluate(
    logits: Logits, held: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]], batch: int
) -> Score:
    """Score a network on batches of images; the last one is filled up, so as to compile once."""
    found = Score()
    for images, labels in held:
        rest = np.zeros((batch - len(images), *images.shape[1:]), np.float32)
        outputs = logits(np.concatenate([images, rest]) if len(rest) else images)
        found += score(outputs[: len(labels)], labels)
    return found


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
