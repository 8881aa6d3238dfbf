"""float16: the loss is scaled, and activations have a slope over the whole range."""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.activations import DEEPMIND_GAMMA
from nfspec.backends.kernels import kernels
from nfspec.backends.optimizers.around import found_in

from .small import batches, small_params, small_plan, small_run, small_spec, with_recipe

BACKEND = keras.backend.backend()
# In float32 PyTorch's gelu doubles a number before it halves it, so that half of the range is lost.
LARGEST = {"float16": 65504.0, "float32": 1.7e38}


def slopes(function, values, dtype):
    """The derivative of a function of single values."""
    x = keras.ops.convert_to_tensor(np.asarray(values), dtype)
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).astype("float32").sum())(x), np.float64)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x).numpy().astype(np.float64)
    x = x.requires_grad_()
    function(x).sum().backward()
    return x.grad.double().numpy()


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", sorted(DEEPMIND_GAMMA))
def test_no_value_and_no_slope_is_lost_at_the_ends_of_the_range(kind, plain, dtype):
    """Far from 0 each activation is a line, a constant, or so near to one that float64 rounds to
    it; the slopes there are those of the float64 function between two points."""
    # selu multiplies by 1.05, which is beyond float16's largest number for the last 5 %.
    ends = [148.0, 256.0, 6e4, 6.2e4 if (kind, dtype) == ("selu", "float16") else LARGEST[dtype]]
    values = [*ends, *(-x for x in ends)]
    function = kernels(plain).activate(kind)
    y = keras.ops.convert_to_numpy(
        keras.ops.cast(function(keras.ops.convert_to_tensor(np.asarray(values), dtype)), "float32")
    )
    found = slopes(function, values, dtype)
    assert np.isfinite(y).all()
    assert np.isfinite(found).all()
    lines = {
        "gelu_tanh": (1.0, 0.0),
        "gelu_erf": (1.0, 0.0),
        "silu": (1.0, 0.0),
        "relu": (1.0, 0.0),
    }
    if kind in lines:
        above, below = lines[kind]
        np.testing.assert_array_equal(found, [above] * 4 + [below] * 4)
        np.testing.assert_array_equal(y[:4], np.asarray(values[:4], dtype).astype("float32"))


@pytest.mark.parametrize("sam", [0.0, 0.05])
def test_mixed_float16_scales_the_loss(sam):
    """By an argument as by Keras's global policy; a small loss moves every parameter."""
    plan = with_recipe(small_plan(), sam_rho=sam)
    model = nfspec.compile(small_spec(), BACKEND, small_params(), dtype="mixed_float16")
    trainer = small_run(plan).compile(model)
    assert found_in(trainer.optimizer, keras.optimizers.LossScaleOptimizer) is trainer.optimizer
    wide = small_run(plan).compile(nfspec.compile(small_spec(), BACKEND, small_params()))
    assert found_in(wide.optimizer, keras.optimizers.LossScaleOptimizer) is None


def test_a_small_loss_moves_every_parameter_in_float16():
    model = nfspec.compile(small_spec(), BACKEND, small_params(), dtype="mixed_float16")
    model.compile(
        nfspec.agc(small_plan(), keras.optimizers.SGD(1.0)),
        lambda y, p: 1e-3 * keras.ops.mean(keras.ops.square(y - p), axis=-1),
    )
    x, labels, _ = batches(1)
    for _ in range(3):  # the first scales may overflow
        model.train_on_batch(x, labels)
    found = nfspec.params_of(model)
    assert [n for n, v in small_params().items() if np.array_equal(found[n], v)] == []
