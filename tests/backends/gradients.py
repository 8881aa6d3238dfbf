"""Gradients of the golden loss in whichever framework runs."""

import keras
import numpy as np

from nfspec.backends.layers.base import NFLayer


def variables(model):
    """Canonical name to Keras variable."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, NFLayer):
            found.update(layer.canonical_variables)
    return found


def loss_gradients(model, x, targets):
    """Gradients of the mean cross-entropy: that of the images, and those by canonical name."""
    named = variables(model)
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        images = torch.tensor(x, requires_grad=True)
        scores = torch.log_softmax(model(images), -1)
        (-(torch.tensor(targets) * scores).sum(-1).mean()).backward()
        return images.grad.numpy(), {n: v.value.grad.numpy() for n, v in named.items()}
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                scores = tf.nn.log_softmax(model(images))
                loss = -tf.reduce_mean(tf.reduce_sum(targets * scores, -1))
            return tape.gradient(loss, [images, *(v.value for v in named.values())])

        first, *rest = (g.numpy() for g in gradients(tf.constant(x)))
        return first, dict(zip(named, rest, strict=True))
    import jax
    import jax.numpy as jnp

    def loss(values, images):
        logits, _ = model.stateless_call(values, [], images)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))

    values = [v.value for v in model.trainable_variables]
    index = {id(v): i for i, v in enumerate(model.trainable_variables)}
    found, first = jax.jit(jax.grad(loss, (0, 1)))(values, x)
    return np.asarray(first), {n: np.asarray(found[index[id(v)]]) for n, v in named.items()}
