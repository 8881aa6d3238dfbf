"""The forward pass of a model as users of each framework run it.

Jitted on JAX, a graph on TensorFlow, eager on PyTorch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree


def caller(model: keras.Model, training: bool = False) -> Callable[[Any], Any]:
    """A function of a batch of images, a tensor, to the model's outputs, tensors.

    It uses the parameters as they are at each call.

    Args:
        model: A model that `nfspec.compile` returned.
        training: Drop at random, as a training step does.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _jitted(model, training)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda x: model(x, training=training), autograph=False)
    if training:
        return lambda x: model(x, training=True)
    import torch

    return torch.inference_mode()(lambda x: model(x, training=False))


def _jitted(model: keras.Model, training: bool) -> Callable[[Any], Any]:
    import jax

    trained, rest = model.trainable_variables, model.non_trainable_variables
    # Of a model that does nothing else in training, `call` need not know of it.
    known = "training" in inspect.signature(model.call).parameters
    how = {"training": training} if known else {}
    jitted = jax.jit(lambda t, r, x: model.stateless_call(t, r, x, **how))

    def call(x: Any) -> Any:
        outputs, after = jitted([v.value for v in trained], [v.value for v in rest], x)
        if training:  # the seeds go on
            for variable, value in zip(rest, after, strict=True):
                variable.assign(value)
        return outputs

    return call


def forward_function(model: keras.Model, training: bool = False) -> Callable[[Any], Any]:
    """`caller` for NumPy arrays: outputs are an array, or a dict of arrays by tap."""
    call = caller(model, training)
    return lambda x: tree.map_structure(ops.convert_to_numpy, call(ops.convert_to_tensor(x)))
