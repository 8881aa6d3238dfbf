"""16 bits: the loss is scaled, and no value and no slope is lost over the whole range."""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.kernels import kernels
from nfspec.backends.optimizers import AGC
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.plan.activations import DEEPMIND_GAMMA, apply

from .small import batches, compiles, small_params, small_plan, small_run, small_spec, with_recipe

BACKEND = keras.backend.backend()
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38}
# Where a framework has no activations of its own they are the plain ones.
HOWS = {kernels(plain).activate: "plain" if plain else "fast" for plain in (False, True)}.values()
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
LEAST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}


def largest(kind, dtype):
    """The largest argument whose value is a number, of a kind of activation."""
    if kind == "selu":  # 1.05 times its argument
        return LARGEST[dtype] / 1.06
    if kind == "gelu_erf" and BACKEND == "torch" and dtype != "float16":
        return LARGEST[dtype] / 2.0  # PyTorch doubles a number before it halves it
    return LARGEST[dtype]


def slopes(function, x):
    """The derivative of a function of single values."""
    if BACKEND == "jax":
        import jax

        slope = jax.grad(lambda x: function(x).astype("float32").sum())
        return as_float64(jax.jit(slope)(x))  # or each operation would be compiled by itself
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return as_float64(tape.gradient(y, x))
    import torch

    x = x.detach().requires_grad_()
    y = function(x)
    y.backward(torch.ones_like(y))
    return as_float64(x.grad.detach())


def as_float64(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), np.float64)


def compiled(function):
    """A function as the framework's compiler runs it."""
    if BACKEND == "torch":
        import torch

        return torch.compile(function, backend="aot_eager", fullgraph=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *((how, kind) for how in HOWS for kind in sorted(DEEPMIND_GAMMA)),
        *(
            pytest.param("compiled", kind, marks=compiles)
            for kind in ("gelu_erf", "gelu_tanh", "silu")
        ),
    ],
)
def test_values_and_slopes_up_to_the_ends_of_the_range(how, kind, dtype):
    """Against float64, where slopes are differences over a ten-thousandth.

    Beyond 100 an activation is a line, a constant, or within 1e-43 of one; but for soft_sign, whose
    slope 1/(1 + |x|)² is the difference of two quotients by 1 + |x|, rounded to float32. A
    framework rounds three times, and what is within `LEAST` of 0 may be 0.
    """
    ends = [148.0, 256.0, 6e4 / 1.06, largest(kind, dtype)]
    x = keras.ops.cast(keras.ops.convert_to_tensor(np.array([*ends, *(-e for e in ends)])), dtype)
    function = kernels(how == "plain").activate(kind)
    function = compiled(function) if how == "compiled" else function
    at = as_float64(x)
    with np.errstate(over="ignore"):
        wanted = apply(kind, at)
        wanted_slopes = (apply(kind, at * 1.0001) - apply(kind, at * 0.9999)) / (at * 2e-4)
    # A difference in float64 of numbers of the value's size.
    differing = 2.0**-52 * np.abs(wanted / (at * 1e-4))
    if kind == "soft_sign":
        differing += 4 * UNIT["float32"] / (1.0 + np.abs(at))
    off = np.abs(as_float64(function(x)) - wanted)
    assert (off <= 4 * UNIT[dtype] * np.abs(wanted) + LEAST[dtype]).all(), off
    off = np.abs(slopes(function, x) - wanted_slopes)
    assert (off <= 4 * UNIT[dtype] * np.abs(wanted_slopes) + LEAST[dtype] + differing).all(), off


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_mean_over_a_window_is_within_the_range(data_format, plain):
    """A mean is no larger than what it is of, though the sum is."""
    images = keras.ops.cast(np.full((1, 5, 4, 3), 65504.0), "float16")
    if data_format == "channels_first":
        images = keras.ops.transpose(images, (0, 3, 1, 2))
    for padding in ("same", "valid"):
        means = kernels(plain).average_pool(images, 2, 2, padding, data_format)
        assert keras.backend.standardize_dtype(means.dtype) == "float16"
        np.testing.assert_array_equal(as_float64(means), 65504.0)


@pytest.mark.parametrize("sam", [0.0, 0.05])
def test_mixed_float16_scales_the_loss(sam):
    """By an argument as by Keras's global policy; a small loss moves every parameter."""
    plan = with_recipe(small_plan(), sam_rho=sam)
    model = nfspec.compile(small_spec(), BACKEND, small_params(), dtype="mixed_float16")
    trainer = small_run(plan).compile(model)
    assert isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    wide = small_run(plan).compile(nfspec.compile(small_spec(), BACKEND, small_params()))
    assert first_of_kind(wide.optimizer, keras.optimizers.LossScaleOptimizer) is None


def test_a_small_loss_moves_every_parameter_in_float16():
    model = nfspec.compile(small_spec(), BACKEND, small_params(), dtype="mixed_float16")
    model.compile(
        nfspec.agc(small_plan(), keras.optimizers.SGD(1.0)),
        lambda y, p: 1e-3 * keras.ops.mean(keras.ops.square(y - p), axis=-1),
    )
    x, labels, _ = batches(1)
    for _ in range(3):  # the first scales may overflow
        model.train_on_batch(x, labels)
    params = nfspec.params_of(model)
    assert [n for n, v in small_params().items() if np.array_equal(params[n], v)] == []


def test_in_16_bits_gradients_are_float32_before_they_are_summed_over_devices(monkeypatch):
    """DistributedDataParallel and MirroredStrategy sum what AGC is given, in its dtype."""
    seen, before = set(), AGC.before

    def watched(self, gradients, variables):
        seen.update(keras.backend.standardize_dtype(gradient.dtype) for gradient in gradients)
        return before(self, gradients, variables)

    monkeypatch.setattr(AGC, "before", watched)
    model = nfspec.compile(small_spec(), BACKEND, small_params(), dtype="mixed_bfloat16")
    x, labels, _ = batches(1)
    small_run().compile(model).train_on_batch(x, labels)
    assert seen == {"float32"}
