"""Each kernel against its plain twin: values and gradients, in float32.

Two float32 computations of a sum of n terms differ by about sqrt(n) roundings of 6e-8 each; the
bound is 16 times that, of the L2 norm of what is compared.
"""

import math

import keras
import numpy as np
import pytest
from keras import ops

from nfspec.activations import DEEPMIND_GAMMA
from nfspec.backends.kernels import kernels, only_plain
from nfspec.backends.layers import WSConv2D
from nfspec.clipping import ClipRule

BACKEND = keras.backend.backend()
FAST, PLAIN = kernels(False), kernels(True)
NAMES = [
    "activate",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "momentum_steps",
    "scale_add",
    "standardise",
    "stored",
]
U = 2.0**-24


def drawn(*shape, seed=0, mean=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(np.float32)


def with_gradients(function, arrays, dy):
    """The value and the derivatives by every array of `sum(dy · value)`."""
    if BACKEND == "jax":
        import jax

        y, back = jax.vjp(function, *map(ops.convert_to_tensor, arrays))
        found = back(ops.convert_to_tensor(dy))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        found = tape.gradient(y, tensors, tf.constant(dy))
    else:
        import torch

        tensors = [torch.tensor(a).requires_grad_() for a in arrays]
        y = function(*tensors)
        found = torch.autograd.grad(y, tensors, torch.tensor(dy))
    return [ops.convert_to_numpy(value) for value in (y, *found)]


def assert_equal(function, *arrays, terms, dy=None):
    """A kernel, given as a function of its module, against its twin."""
    shape = ops.convert_to_numpy(function(PLAIN)(*map(ops.convert_to_tensor, arrays))).shape
    dy = drawn(*shape, seed=9)
    fast, plain = (with_gradients(function(m), arrays, dy) for m in (FAST, PLAIN))
    for i, (found, wanted) in enumerate(zip(fast, plain, strict=True)):
        assert found.shape == wanted.shape
        distance = np.linalg.norm(found.astype(float) - wanted)
        # dy is random, so that its sums are as large as the root of their terms.
        size = max(np.linalg.norm(wanted.astype(float)), math.sqrt(wanted.size))
        assert distance <= 16 * math.sqrt(terms) * U * size, i


@pytest.mark.parametrize("module", [FAST, PLAIN])
def test_every_framework_has_the_same_names(module):
    assert all(callable(getattr(module, name)) for name in NAMES)


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise(rule, ddof, mean):
    # A mean of 30 std leaves rounding errors of the weights 30 times as large.
    kernel, gain = drawn(3, 3, 4, 6, mean=mean), drawn(6, seed=1)
    gain[0] = 0.0
    how = {"eps": 1e-4, "eps_rule": rule, "ddof": ddof, "gamma": 1.7}
    terms = 36 * (1 + mean) ** 2
    assert_equal(lambda m: lambda k, g: m.standardise(k, g, **how), kernel, gain, terms=terms)


@pytest.mark.parametrize("rule", ["max", "add"])
def test_standardise_a_channel_below_eps(rule):
    kernel, gain = drawn(1, 1, 16, 3), drawn(3, seed=1)
    kernel[..., 0] *= 1e-5
    how = {"eps": 1e-4, "eps_rule": rule, "ddof": 0, "gamma": 1.0}
    assert_equal(lambda m: lambda k, g: m.standardise(k, g, **how), kernel, gain, terms=16)


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(
    ("side", "strides", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (3, 1, 4)]
)
def test_convolve(side, strides, groups, padding, fmt):
    x, kernel = drawn(2, 7, 6, 8), drawn(side, side, 8 // groups, 8, seed=1)
    if fmt == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    assert_equal(
        lambda m: lambda x, k, b: m.convolve(x, m.stored(k), b, strides, padding, fmt),
        x,
        kernel,
        drawn(8, seed=2),
        terms=2 * 7 * 6 * side * side,
    )


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_convolve_activated(kind):
    x, kernel, bias = map(
        ops.convert_to_tensor, (drawn(2, 7, 6, 8), drawn(3, 3, 4, 8, seed=1), drawn(8, seed=2))
    )
    values = []
    for module in (FAST, PLAIN):
        call = lambda m=module: m.convolve_activated(  # noqa: E731
            x, m.stored(kernel), bias, 2, "same", "channels_last", kind, 0.01
        )
        if BACKEND == "torch":
            import torch

            with torch.inference_mode():
                values.append(ops.convert_to_numpy(call()))
        else:
            values.append(ops.convert_to_numpy(call()))
    assert np.linalg.norm(values[0] - values[1]) <= 16 * 6 * U * np.linalg.norm(values[1])


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_activate(kind):
    x = np.concatenate([np.linspace(-12, 12, 500), [-90.0, 90.0, 1e-20]]).astype(np.float32)
    assert_equal(lambda m: m.activate(kind), x, terms=1)


@pytest.mark.parametrize("sides", [(5, 4), (1, 1)])
@pytest.mark.parametrize("scale", [(2, 1, 1, 8), ()])
def test_scale_add(scale, sides):
    """Images of one pixel, too, where the derivative by the gate sums nothing."""
    images = (2, *sides, 8)
    arrays = drawn(*images), drawn(*scale, seed=1), drawn(*images, seed=2)
    assert_equal(lambda m: m.scale_add, *arrays, terms=2 * 20)


def test_scale_add_by_a_number():
    arrays = drawn(2, 5, 4, 8), drawn(2, 5, 4, 8, seed=1)
    assert_equal(lambda m: lambda x, y: m.scale_add(x, 0.2, y), *arrays, terms=1)


def test_dense():
    arrays = drawn(3, 16), drawn(16, 5, seed=1), drawn(5, seed=2)
    assert_equal(lambda m: m.dense, *arrays, terms=16)
    if BACKEND == "torch":
        import torch

        with torch.inference_mode():
            found, wanted = (m.dense(*map(torch.tensor, arrays)) for m in (FAST, PLAIN))
        assert torch.linalg.norm(found - wanted) <= 64 * U * torch.linalg.norm(wanted)


@pytest.mark.parametrize("sides", [(6, 4), (5, 7)])
def test_average_pool(sides):
    arrays = (drawn(2, *sides, 8),)
    assert_equal(
        lambda m: lambda x: m.average_pool(x, 2, 2, "same", "channels_last"), *arrays, terms=4
    )


RULES = [
    ((3, 3, 4, 6), ClipRule((0, 1, 2), 6, 0.01, 1e-3)),
    ((16, 5), ClipRule((0,), 5, 0.01, 1e-3)),
    ((16, 5), ClipRule((0,), 5, None, 1e-3)),
    ((6,), ClipRule(None, 1, 0.01, 1e-3)),
    ((6,), ClipRule((), 6, 0.1, 1e-3)),
    ((), ClipRule(None, 1, 0.01, 1e-3)),
]


def test_clip_all():
    rules = [rule for _, rule in RULES]
    gradients = [0.1 * drawn(*shape, seed=i) for i, (shape, _) in enumerate(RULES)]
    gradients[0][..., 0] *= 1e-3  # a unit that is left alone
    gradients[0][0, 0, 0, 1] = np.nan
    gradients[1][0, 1] = np.inf
    weights = [drawn(*shape, seed=10 + i) for i, (shape, _) in enumerate(RULES)]
    results = []
    for module in (FAST, PLAIN):
        tensors = [
            [module.stored(ops.convert_to_tensor(a)) for a in b] for b in (gradients, weights)
        ]
        clipped, fractions = module.clip_all(*tensors, rules)
        results.append(([ops.convert_to_numpy(c) for c in clipped], [float(f) for f in fractions]))
    for (shape, rule), found, wanted in zip(RULES, results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=16 * 6 * U, err_msg=f"{shape} {rule}")
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_steps(nesterov):
    from nfspec.backends.optimizers import SGD

    found = []
    for plain in (False, True):
        with only_plain() if plain else _nothing():
            layer = WSConv2D(6, 3, name="conv")
            layer.build((None, 8, 8, 4))
            optimizer = SGD(0.1, momentum=0.9, nesterov=nesterov, coupled_weight_decay=1e-2)
            optimizer.build(layer.trainable_variables)
        for i, variable in enumerate(layer.trainable_variables):
            variable.assign(drawn(*variable.shape, seed=i))
        for step in range(3):
            gradients = [
                ops.convert_to_tensor(drawn(*v.shape, seed=10 * step + i))
                for i, v in enumerate(layer.trainable_variables)
            ]
            _apply(optimizer, gradients, layer.trainable_variables)
        found.append([ops.convert_to_numpy(v) for v in layer.trainable_variables])
    for a, b in zip(*found, strict=True):
        assert np.linalg.norm(a - b) <= 16 * U * np.linalg.norm(b)


def _apply(optimizer, gradients, variables):
    if BACKEND != "torch":
        optimizer.apply(gradients, variables)
        return
    import torch

    with torch.no_grad():
        optimizer.apply(gradients, variables)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (16, 5), (6,), ()])
def test_stored_changes_no_value(shape):
    kernel = drawn(*shape)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(FAST.stored(ops.convert_to_tensor(kernel))), kernel
    )


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's packed weights")
def test_a_packed_weight_is_not_used_after_the_parameter_changed():
    import torch

    from nfspec.backends.layers import Conv2D

    layer, x = Conv2D(8, 3, name="conv"), torch.tensor(drawn(1, 6, 6, 4))
    layer.build((None, 6, 6, 4))
    with torch.no_grad():
        first = layer(x)
        layer.kernel.assign(2.0 * ops.convert_to_numpy(layer.kernel))
        assert torch.equal(layer(x), 2.0 * first)
        assert layer(x[:, :5]).shape == (1, 5, 6, 8)
