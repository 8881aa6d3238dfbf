"""Activations by name, and the gamma that keeps their output at unit variance.

gamma is 1/sqrt(Var f(z)), z standard normal (Brock et al. 2021, arXiv:2101.08692, §3.3). The
original code has Monte-Carlo estimates of it (deepmind-research/nfnets/base.py, `nonlinearities`),
up to 9e-4 away from the integral; pretrained weights need those very digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEEPMIND_GAMMA = {
    "identity": 1.0,
    "celu": 1.270926833152771,
    "elu": 1.2716004848480225,
    "gelu_tanh": 1.7015043497085571,
    "gelu_erf": 1.7015043497085571,
    "leaky_relu": 1.70590341091156,
    "log_sigmoid": 1.9193484783172607,
    "relu": 1.7139588594436646,
    "relu6": 1.7131484746932983,
    "selu": 1.0008515119552612,
    "sigmoid": 4.803835391998291,
    "silu": 1.7881293296813965,
    "soft_sign": 2.338853120803833,
    "softplus": 1.9203323125839233,
    "tanh": 1.5939117670059204,
}
DEEPMIND_SLOPE = 0.01  # the table's leaky_relu

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

_erf: Any = np.frompyfunc(math.erf, 1, 1)  # NumPy has none; correct to the last bit but one


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def _gelu_erf(x: Array, slope: float) -> Array:
    return 0.5 * x * (1.0 + np.asarray(_erf(x / math.sqrt(2.0)), np.float64))


def _gelu_tanh(x: Array, slope: float) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _selu(x: Array, slope: float) -> Array:
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))


# Activation to f(x); `slope` is leaky_relu's for x < 0.
FUNCTIONS: Mapping[str, Callable[[Array, float], Array]] = {
    "identity": lambda x, slope: x,
    "celu": _elu,  # equal to elu at their usual alpha of 1
    "elu": _elu,
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "leaky_relu": lambda x, slope: np.where(x >= 0, x, slope * x),
    "log_sigmoid": lambda x, slope: -_softplus(-x),
    "relu": lambda x, slope: np.maximum(x, 0.0),
    "relu6": lambda x, slope: np.clip(x, 0.0, 6.0),
    "selu": _selu,
    "sigmoid": lambda x, slope: _sigmoid(x),
    "silu": lambda x, slope: x * _sigmoid(x),
    "soft_sign": lambda x, slope: x / (1.0 + np.abs(x)),
    "softplus": lambda x, slope: _softplus(x),
    "tanh": lambda x, slope: np.tanh(x),
}


def apply(kind: str, x: Array, slope: float = DEEPMIND_SLOPE) -> Array:
    """Apply an activation, without gamma, in float64.

    Args:
        kind: One of the keys of `FUNCTIONS`.
        x: Any shape.
        slope: Slope of `leaky_relu` for x < 0.

    Raises:
        KeyError: The name is not known.
    """
    return FUNCTIONS[kind](x, slope)


def exact_gamma(kind: str, slope: float = DEEPMIND_SLOPE) -> float:
    """1/sqrt(Var f(z)) for a standard normal z: what a conv that is standardised needs."""
    mean, square = _moments(kind, slope)
    return 1.0 / math.sqrt(square - mean * mean)


def plain_gamma(kind: str, slope: float = DEEPMIND_SLOPE) -> float:
    """1/sqrt(E f(z)²), what a conv needs that is not standardised: it passes the mean on, too."""
    return 1.0 / math.sqrt(_moments(kind, slope)[1])


@cache
def _moments(kind: str, slope: float) -> tuple[float, float]:
    """E f(z) and E f(z)² by Gauss-Legendre quadrature, the pieces split where f has a kink."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    mean = square = 0.0
    for low, high in ((-14.0, -6.0), (-6.0, 0.0), (0.0, 6.0), (6.0, 14.0)):
        z = 0.5 * (high - low) * nodes + 0.5 * (high + low)
        density = 0.5 * (high - low) * weights * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        f = apply(kind, z, slope)
        mean += float(np.sum(density * f))
        square += float(np.sum(density * f * f))
    return mean, square
