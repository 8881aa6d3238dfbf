"""Gradients of the golden loss in whichever framework runs, each network compiled once."""

from functools import cache

import keras
import numpy as np

import nfspec
from nfspec.backends.layers.base import NFLayer

from golden import golden


def variables(model):
    """Canonical name to Keras variable."""
    named = {}
    for layer in model.layers:
        if isinstance(layer, NFLayer):
            named.update(layer.canonical_variables)
    return named


@cache
def shared_model(network):
    """A golden network's model, one for all tests; see `golden_model`."""
    g = golden(network)
    return nfspec.compile(g.spec, keras.backend.backend(), g.params)


def golden_model(network):
    """A golden network's model with the golden parameters."""
    model = shared_model(network)
    for name, variable in variables(model).items():
        variable.assign(golden(network).params[name])
    return model


def smoothed(network):
    """The golden targets: one-hot labels with smoothing of 0.1, (N, classes)."""
    g = golden(network)
    classes = g["logits"].shape[1]
    return (0.9 * np.eye(classes)[g["labels"]] + 0.1 / classes).astype(np.float32)


@cache
def gradient_function(model):
    """A function of (images, targets) to the logits, the mean cross-entropy, its gradient for the
    images, and those for `model.trainable_variables`, in the framework's own arrays."""
    backend = keras.backend.backend()
    weights = model.trainable_variables
    if backend == "torch":
        import torch

        def gradients(x, targets):
            images = torch.tensor(x, requires_grad=True)
            logits = model(images)
            scores = torch.log_softmax(logits, -1)
            loss = -(torch.tensor(targets) * scores).sum(-1).mean()
            grads = torch.autograd.grad(loss, [images, *(v.value for v in weights)])
            return logits.detach(), loss.detach(), grads[0], list(grads[1:])

        return gradients
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients(images, targets):
            with tf.GradientTape() as tape:
                tape.watch(images)
                logits = model(images)
                loss = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), -1))
            first, *rest = tape.gradient(loss, [images, *(v.value for v in weights)])
            return logits, loss, first, rest

        return lambda x, targets: gradients(tf.constant(x), tf.constant(targets))
    import jax
    import jax.numpy as jnp

    states = [v.value for v in model.non_trainable_variables]

    def loss(values, images, targets):
        logits, _ = model.stateless_call(values, states, images)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1)), logits

    jitted = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))

    programs = []  # of the one shape, which outlives the clearing of JAX's caches after a file

    def gradients(x, targets):
        given = ([v.value for v in weights], x, targets)
        if not programs:
            programs.append(jitted.lower(*given).compile())
        (value, logits), (rest, first) = programs[0](*given)
        return logits, value, first, rest

    return gradients


def loss_gradients(model, x, targets):
    """Logits, and gradients of the mean cross-entropy: that of the images, and those by canonical
    name."""
    logits, _, first, rest = gradient_function(model)(x, targets)
    arrays = dict(zip(nfspec.names_of(model), map(keras.ops.convert_to_numpy, rest), strict=True))
    return keras.ops.convert_to_numpy(logits), keras.ops.convert_to_numpy(first), arrays
