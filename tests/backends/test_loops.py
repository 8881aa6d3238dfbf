"""Networks that drop at random in training loops of one's own: the argument `training` rules."""

import keras
import numpy as np
import pytest

import nfspec

from .small import DROPS, batches, small_params, small_spec

BACKEND = keras.backend.backend()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@pytest.mark.parametrize("graph", [False, True])
def test_a_loop_with_a_gradient_tape(graph):
    import tensorflow as tf

    model = nfspec.compile(small_spec(DROPS), "tensorflow", small_params())
    x, labels, _ = batches(1)

    def losses(**how):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, **how) - labels))
        return loss, tape.gradient(loss, model.trainable_variables)[0]

    step = tf.function(losses) if graph else losses
    trained = [step(training=True) for _ in range(2)]
    still = [step() for _ in range(2)] + [step(training=False)]
    assert trained[0][0] != trained[1][0]
    assert (trained[0][1].numpy() != trained[1][1].numpy()).any()
    assert len({float(loss) for loss, _ in still}) == 1


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_a_loop_with_stateless_calls():
    """The seeds among the non-trainable variables decide what is dropped."""
    import jax

    model = nfspec.compile(small_spec(DROPS), "jax", small_params())
    x = batches(1)[0]
    trainable, seeds = ([v.value for v in vs] for vs in (
        model.trainable_variables, model.non_trainable_variables
    ))  # fmt: skip
    train = jax.jit(lambda s: model.stateless_call(trainable, s, x, training=True))
    first, after = train(seeds)
    second, _ = train(after)
    again, _ = train(seeds)
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)
    infer = jax.jit(lambda s: model.stateless_call(trainable, s, x))
    still, same = infer(seeds)
    np.testing.assert_array_equal(still, infer(after)[0])
    assert all((a == b).all() for a, b in zip(seeds, same, strict=True))
