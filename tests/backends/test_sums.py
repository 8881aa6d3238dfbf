"""In 16 bits on JAX, gradients by parameters are sums in float32: over images, and over devices.

Products of numbers of bfloat16 are exact in float32. A sum of n of them is off by about sqrt(n)
roundings of 6e-8; the bound is 16 times that, of the L2 norm. A sum that is rounded to bfloat16 is
off by 2e-3.
"""

import os

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

import jax
import jax.numpy as jnp

import nfspec
import nfspec.backends.jax
from nfspec.backends.kernels import jax as kernels
from nfspec.reference import derivatives

from .small import drawn
from tiny import STILL, write_spec

U = 2.0**-24


def narrow(*shape, seed=0):
    return jnp.asarray(drawn(*shape, seed=seed), jnp.bfloat16)


def exactly(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def assert_sums(found, exact, terms):
    assert found.dtype == jnp.float32
    error = np.linalg.norm(np.asarray(found, np.float64) - exact)
    assert error <= 16 * U * terms**0.5 * np.linalg.norm(exact)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(
    ("side", "strides", "groups", "dilation"),
    [(1, 1, 1, 1), (1, 2, 1, 1), (3, 2, 1, 1), (3, 1, 4, 1), (3, 1, 32, 1), (3, 1, 2, 2)],
)
def test_a_conv(side, strides, groups, dilation, padding):
    x, bias = narrow(2, 7, 6, 32), jnp.asarray(drawn(64, seed=2))
    kernel = jnp.asarray(drawn(side, side, 32 // groups, 64, seed=1))

    def conv(kernel, bias):
        return kernels.convolve(x, kernel, bias, strides, padding, "channels_last", dilation)

    y, back = jax.vjp(jax.jit(conv), kernel, bias)
    assert y.dtype == jnp.bfloat16
    dy = narrow(*y.shape, seed=3)
    of_kernel, of_bias = back(dy)
    exact, wide = exactly(dy, x)
    _, expected = derivatives.conv(
        exact, wide, np.asarray(kernel, np.float64), strides, groups, padding, dilation
    )
    assert_sums(of_kernel, expected, 2 * 7 * 6)
    assert_sums(of_bias, exact.sum(axis=(0, 1, 2)), 2 * 7 * 6)


def test_a_dense_layer():
    x, kernel, bias = narrow(5, 16), jnp.asarray(drawn(16, 3, seed=1)), jnp.zeros(3)
    y, back = jax.vjp(lambda *each: kernels.dense(x, *each), kernel, bias)
    dy = narrow(*y.shape, seed=3)
    of_kernel, of_bias = back(dy)
    assert_sums(of_kernel, np.asarray(x, np.float64).T @ np.asarray(dy, np.float64), 5)
    assert_sums(of_bias, np.asarray(dy, np.float64).sum(axis=0), 5)


def test_a_skip_gain():
    branch, shortcut = narrow(2, 5, 4, 8), narrow(2, 5, 4, 8, seed=1)
    y, back = jax.vjp(lambda s: kernels.scale_add(branch, s, shortcut), jnp.float32(0.3))
    dy = narrow(*y.shape, seed=3)
    (of_scale,) = back(dy)
    assert y.dtype == jnp.bfloat16
    products = np.asarray(dy, np.float64) * np.asarray(branch, np.float64)
    assert abs(of_scale - products.sum()) <= 16 * U * 320**0.5 * np.linalg.norm(products)


@pytest.mark.parametrize("attention", ["se", "eca"])
def test_no_gradient_of_a_network_is_rounded_to_bfloat16(attention, tmp_path):
    """Each parameter's gradient has an element that bfloat16 does not have."""
    text = STILL.replace('attention = "none"', f'attention = "{attention}"')
    plan = nfspec.resolve(nfspec.load(write_spec(tmp_path, text)))
    apply = nfspec.backends.jax.function(plan, dtype="mixed_bfloat16")
    images = drawn(3, 17, 14, plan.channels)
    params = {name: jnp.asarray(v) + 0.1 for name, v in nfspec.init(plan, seed=1).items()}
    gradients = jax.grad(lambda params: jnp.sum(jnp.sin(apply(params, images))))(params)
    rounded = [
        name
        for name, gradient in gradients.items()
        if bool(jnp.all(gradient == gradient.astype(jnp.bfloat16).astype(gradient.dtype)))
    ]
    assert rounded == []
