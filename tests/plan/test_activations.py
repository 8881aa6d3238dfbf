"""Gammas against quadrature done elsewhere, and every activation against its definition."""

import math
from typing import get_args

import numpy as np
import pytest

from nfspec.language.fields import Kind
from nfspec.plan.activations import (
    DEEPMIND_GAMMA,
    FUNCTIONS,
    apply,
    exact_gamma,
    plain_gamma,
)
from nfspec.reference.derivatives import SLOPES

# 1/sqrt(Var f(z)) by adaptive quadrature (scipy.integrate.quad), to ten decimals; that of relu is
# sqrt(2 / (1 - 1/pi)).
EXACT = {
    "identity": 1.0,
    "celu": 1.2708434179,
    "elu": 1.2708434179,
    "gelu_erf": 1.7009262434,
    "gelu_tanh": 1.7009165617,
    "leaky_relu": 1.7048316272,
    "log_sigmoid": 1.9191259801,
    "relu": 1.7128585504,
    "relu6": 1.7128585550,
    "selu": 1.0,
    "sigmoid": 4.8013133720,
    "silu": 1.7871872221,
    "soft_sign": 2.3375333631,
    "softplus": 1.9191259801,
    "tanh": 1.5925374197,
}
POINTS = (-30.0, -2.5, -0.5, 0.0, 0.75, 5.5, 6.5, 30.0)


def erf_gelu(x):
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


def tanh_gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def selu(x):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * (x if x > 0 else alpha * math.expm1(x))


DEFINITION = {
    "identity": lambda x: x,
    "celu": lambda x: max(x, 0) + min(0, math.expm1(x)),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu_erf": erf_gelu,
    "gelu_tanh": tanh_gelu,
    "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
    "log_sigmoid": lambda x: -math.log1p(math.exp(-x)),
    "relu": lambda x: max(x, 0),
    "relu6": lambda x: min(max(x, 0), 6),
    "selu": selu,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "soft_sign": lambda x: x / (1 + abs(x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_exact_gammas_are_the_integrals(kind):
    assert exact_gamma(kind) == pytest.approx(EXACT[kind], rel=1e-9, abs=0)


@pytest.mark.parametrize(("slope", "gamma"), [(0.2, 1.5464600603), (0.3, 1.4633055299)])
def test_the_exact_gamma_of_a_leaky_relu_is_that_of_its_slope(slope, gamma):
    assert exact_gamma("leaky_relu", slope) == pytest.approx(gamma, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("kind", "square"), [("relu", 0.5), ("identity", 1.0), ("leaky_relu", 0.5 * (1 + 0.01**2))]
)
def test_the_gamma_before_a_plain_conv_counts_the_mean(kind, square):
    assert plain_gamma(kind) == pytest.approx(square**-0.5, rel=1e-9, abs=0)


def test_the_originals_gammas_are_estimates_of_the_exact_ones():
    errors = {kind: abs(gamma / exact_gamma(kind) - 1) for kind, gamma in DEEPMIND_GAMMA.items()}
    assert max(errors.values()) == pytest.approx(8.6e-4, abs=1e-5)
    assert DEEPMIND_GAMMA["relu"] == 1.7139588594436646
    assert DEEPMIND_GAMMA["gelu_tanh"] == DEEPMIND_GAMMA["gelu_erf"] == 1.7015043497085571
    assert DEEPMIND_GAMMA["silu"] == 1.7881293296813965


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_activations_are_what_their_names_say(kind):
    expected = [DEFINITION[kind](x) for x in POINTS]
    np.testing.assert_allclose(apply(kind, np.array(POINTS)), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_activations_take_any_number_and_keep_the_shape(kind):
    actual = apply(kind, np.array([[-1e4, -745.2], [710.0, 1e4]]))
    assert actual.shape == (2, 2)
    assert actual.dtype == np.float64
    assert np.isfinite(actual).all()


def test_an_unknown_activation():
    with pytest.raises(KeyError, match="swish"):
        apply("swish", np.zeros(1))


def test_every_kind_of_the_language_is_in_every_table():
    assert set(get_args(Kind)) == set(DEEPMIND_GAMMA) == set(FUNCTIONS) == set(SLOPES)
