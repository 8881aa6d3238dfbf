"""Equal blocks as one program are the same network: `benchmarks.reused` measures the same work."""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.conformance.cases.weights import trial_params

if keras.backend.backend() != "tensorflow":
    pytest.skip("of TensorFlow", allow_module_level=True)

import tensorflow as tf

from nfspec.benchmarks import equal, reused

OVER = {
    "stages.depth": [1, 3],
    "stages.width": [16, 16],
    "stages.stride": [1, 2],
    "stages.group_width": 8,
    "stem.width": [4, 4, 8, 8],
    "head.classes": 10,
    "head.dropout": 0.0,
    "stochastic_depth.rate": 0.5,
}


def gradients(forward, model, x):
    """The loss and the gradients of a pass that drops what any other drops, as one graph."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign([len(layer.name), 0])

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(forward(x) ** 2)
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    return step()


@pytest.mark.slow  # traces the gradients of four blocks three times
def test_equal_blocks_as_one_program_have_the_loss_and_the_gradients_of_blocks():
    spec = nfspec.load("nfnet-f0", OVER)
    model = nfspec.compile(spec, "tensorflow", trial_params(nfspec.resolve(spec), 0))
    assert [len(regions) for regions in equal.equal_blocks(model)[:4]] == [1, 1, 1, 2]
    x = tf.constant(np.random.default_rng(0).standard_normal((4, 32, 32, 3), np.float32))
    loss, right = gradients(lambda x: model(x, training=True), model, x)
    for way in ("functions", "loops"):
        found, other = gradients(lambda x, way=way: reused.forward(model, way, x), model, x)
        assert float(found) == pytest.approx(float(loss), rel=1e-6)
        # TensorFlow may add up in another order; four blocks of roundings.
        for name, one, two in zip(nfspec.names_of(model), right, other, strict=True):
            assert np.linalg.norm(one - two) <= 1e-5 * np.linalg.norm(one), (way, name)
