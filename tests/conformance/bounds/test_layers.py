"""Bounds of all but convs: float32 by the formulas stays within them, mistakes do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from nfspec import plan as p
from nfspec.conformance.bounds import layers as bounds
from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.precision import MODES, narrow
from nfspec.conformance.cases.regimes import IMAGE_REGIMES
from nfspec.conformance.cases.target import SE, target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import wide
from nfspec.plan.activations import DEEPMIND_GAMMA, SELU_ALPHA, SELU_SCALE
from nfspec.reference import derivatives
from nfspec.reference import operations as ops

from .float32 import matmul, ratio, sigmoid, summed

FULL = MODES["f32"]
SEEDS = range(3)
GRID = target(None)  # test_properties.py has its corners, where mistakes need not show
POOLS, DENSE = GRID.of(p.Pool), p.Dense("op", ("x",), 96, 10, 1.0)
ACTIVATIONS = [op for op in GRID.of(p.Activation) if op.kind != "leaky_relu" or op.slope == 0.02]
SES, ECAS, RESIDUALS = (GRID.of(kind)[:2] for kind in (p.SqueezeExcite, p.ECA, p.Residual))
F = np.float32
_erf = np.vectorize(math.erf, otypes=[np.float32])


def softplus(x):
    return np.maximum(x, F(0)) + np.log1p(np.exp(-np.abs(x)))


def gelu_tanh(x):
    inner = F(math.sqrt(2 / math.pi)) * (x + F(0.044715) * x * x * x)
    return F(0.5) * x * (F(1) + np.tanh(inner))


FUNCTIONS = {
    "identity": lambda x: x,
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, F(0)))),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, F(0))) - F(1)),
    "gelu_erf": lambda x: F(0.5) * x * (F(1) + _erf(x * F(0.5**0.5))),
    "gelu_tanh": gelu_tanh,
    "leaky_relu": lambda x: np.where(x > 0, x, F(0.02) * x),
    "log_sigmoid": lambda x: -softplus(-x),
    "relu": lambda x: np.maximum(x, F(0)),
    "relu6": lambda x: np.clip(x, F(0), F(6)),
    "selu": lambda x: (
        F(SELU_SCALE) * np.where(x > 0, x, F(SELU_ALPHA) * (np.exp(np.minimum(x, F(0))) - F(1)))
    ),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "soft_sign": lambda x: x / (F(1) + np.abs(x)),
    "softplus": softplus,
    "tanh": np.tanh,
}

# Where frameworks have none of their own, their rules for products give these.
SLOPES = {
    "gelu_erf": lambda x: (
        F(0.5) * (F(1) + _erf(x * F(0.5**0.5)))
        + x * (F(0.5 * math.sqrt(2 / math.pi)) * np.exp(F(-0.5) * x * x))
    ),
    "sigmoid": lambda x: sigmoid(x) * (F(1) - sigmoid(x)),
    "silu": lambda x: sigmoid(x) * (F(1) + x * (F(1) - sigmoid(x))),
    "soft_sign": lambda x: F(1) / ((F(1) + np.abs(x)) * (F(1) + np.abs(x))),
    "log_sigmoid": lambda x: F(1) - sigmoid(x),
    "softplus": sigmoid,
}


def activation(op, x):
    f = FUNCTIONS[op.kind]
    if op.beta_at == "before":
        return F(op.gamma) * f(F(op.beta) * x)
    return F(op.gamma) * (F(op.beta) * f(x))


def activation_gradient(op, dy, x):
    at = F(op.beta) * x if op.beta_at == "before" else x
    if op.kind in SLOPES:
        slope = SLOPES[op.kind](at)
    else:
        slope = derivatives.slope(op.kind, at, op.slope).astype(F)
    return F(op.beta) * (F(op.gamma) * dy * slope)


def pool(op, x):
    if op.kind == "max":
        return ops.pool(op, x)
    total = summed(ops.windows(x, op.window, op.stride, op.padding, 0.0), (4, 5))
    if op.counted:
        return total / op.window**2
    inside = ops.windows(np.ones_like(x), op.window, op.stride, op.padding, 0.0).sum(axis=(4, 5))
    return total / inside


def mean(x):
    return summed(x, (1, 2)) / F(x.shape[1] * x.shape[2])


def squeeze_excite(op, x, w0, b0, w1, b1):
    before = matmul(mean(x), w0) + b0
    hidden = F(op.gamma) * FUNCTIONS[op.activation](before)
    gate = sigmoid(matmul(hidden, w1) + b1)
    return F(op.gain) * gate[:, None, None, :] * x


def squeeze_excite_gradient(op, dy, x, w0, b0, w1, b1):
    means = mean(x)
    before = matmul(means, w0) + b0
    hidden = F(op.gamma) * FUNCTIONS[op.activation](before)
    gate = sigmoid(matmul(hidden, w1) + b1)
    dz = F(op.gain) * summed(x * dy, (1, 2)) * gate * (F(1) - gate)
    slope = derivatives.slope(op.activation, before, op.slope).astype(F)
    dbefore = matmul(dz, w1.T) * F(op.gamma) * slope
    spread = matmul(dbefore, w0.T) / F(x.shape[1] * x.shape[2])
    return {
        "x": F(op.gain) * gate[:, None, None, :] * dy + spread[:, None, None, :],
        "fc0.kernel": matmul(means.T, dbefore),
        "fc0.bias": summed(dbefore),
        "fc1.kernel": matmul(hidden.T, dz),
        "fc1.bias": summed(dz),
    }


def taps(rows, kernel):
    half = len(kernel) // 2
    view = sliding_window_view(np.pad(rows, ((0, 0), (half, half))), len(kernel), axis=1)
    return summed(view * kernel, 2), view


def eca(op, x, kernel):
    gate = sigmoid(taps(mean(x), kernel)[0])
    return F(op.gain) * gate[:, None, None, :] * x


def eca_gradient(op, dy, x, kernel):
    z, view = taps(mean(x), kernel)
    gate = sigmoid(z)
    dz = F(op.gain) * summed(x * dy, (1, 2)) * gate * (F(1) - gate)
    spread = taps(dz, kernel[::-1])[0] / F(x.shape[1] * x.shape[2])
    dx = F(op.gain) * gate[:, None, None, :] * dy + spread[:, None, None, :]
    return {"x": dx, "kernel": summed(view * dz[..., None], (0, 1))}


def named(op):
    """A short name of a case."""
    kind = getattr(op, "kind", type(op).__name__)
    return f"{kind}-{getattr(op, 'beta_at', '')}{getattr(op, 'padding', '')}"


def arrays(property_id, op, regime="normal", seed=0):
    """As the kit draws them."""
    asked = PROPERTIES[property_id]
    shape = next(case.shape for case in asked.cases(GRID) if case.op == op)
    (call,) = asked.calls(Case(property_id, seed, regime, op=op, shape=shape))
    return call


def values(a):
    return [value for name, value in a.items() if name not in ("dy", "x", "shortcut")]


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", ACTIVATIONS, ids=named)
@pytest.mark.parametrize("mode", ["f32", "bf16", "f16"])
def test_activations(mode, op, regime):
    """In narrow modes every step of a fused formula is float32, and the ends are narrow."""
    worst = 0.0
    for seed in SEEDS:
        x = arrays("ACT-01", op, regime, seed)["x"]
        exact, terms = bounds.activation(op, x.astype(np.float64), MODES[mode])
        y = narrow(activation(op, narrow(x, mode)), mode)
        worst = max(worst, ratio(y, exact, terms))
    assert worst <= 1.0
    if op.kind != "identity" and regime == "normal":
        assert worst >= 1 / 40


@pytest.mark.parametrize("op", ACTIVATIONS, ids=named)
def test_activations_exact_values(op):
    x = wide(arrays("ACT-01", op))["x"]
    y, _ = bounds.activation(op, x, FULL)
    np.testing.assert_array_equal(y, ops.activation(op, x))


@pytest.mark.parametrize("op", ACTIVATIONS, ids=named)
def test_an_activation_off_by_a_little_is_beyond(op):
    """A factor of 1 + 1e-5, which is 168 units of float32."""
    x = wide(arrays("ACT-01", op))["x"]
    y, terms = bounds.activation(op, x, FULL)
    assert ratio(y * (1 + 1e-5), y, terms) > 1.0


def test_the_other_gelu_is_beyond():
    op = next(op for op in ACTIVATIONS if op.kind == "gelu_tanh")
    x = wide(arrays("ACT-01", op))["x"]
    y, terms = bounds.activation(op, x, FULL)
    assert ratio(ops.activation(replace(op, kind="gelu_erf"), x), y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", ACTIVATIONS, ids=named)
def test_activation_gradients(op, regime):
    for seed in SEEDS:
        a = arrays("ACT-02", op, regime, seed)
        dx, terms = bounds.activation_gradient(op, *wide(a).values(), FULL)
        computed = activation_gradient(op, a["dy"], a["x"])
        assert computed.dtype == F
        assert ratio(computed, dx, terms) <= 1.0
        # Far into a tail the slope is what is left of 1 - 1.
        assert regime != "normal" or ratio(dx * (1 + 1e-4), dx, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", POOLS, ids=named)
def test_pools(op, regime):
    for seed in SEEDS:
        x = arrays("POOL-01", op, regime, seed)["x"]
        y, terms = bounds.pool(op, x.astype(np.float64), FULL)
        np.testing.assert_array_equal(y, ops.pool(op, x.astype(np.float64)))
        assert ratio(pool(op, x), y, terms) <= 1.0
        assert ratio(y * (1 + 1e-6), y, terms) > 1.0


def test_a_maximum_is_exact_but_for_what_enters():
    op = next(op for op in POOLS if op.kind == "max")
    x = wide(arrays("POOL-01", op))["x"]
    y, terms = bounds.pool(op, x, FULL)
    assert sum(term.max() for term in terms.values()) == 0.0
    _, terms = bounds.pool(op, x, MODES["bf16"])
    assert ratio(pool(op, narrow(x, "bf16")), y, terms) <= 1.0


@pytest.mark.parametrize("op", POOLS, ids=named)
def test_pool_gradients(op):
    for seed in SEEDS:
        a = arrays("POOL-02", op, "normal", seed)
        dx, terms = bounds.pool_gradient(op, *wide(a).values(), FULL)
        computed = derivatives.pool(op, a["dy"], a["x"]).astype(F)
        assert ratio(computed, dx, terms) <= 1.0
        assert ratio(dx * (1 + 1e-5), dx, terms) > 1.0


def test_an_average_that_counts_padding_is_beyond():
    op = next(op for op in POOLS if op.kind == "avg")
    x = wide(arrays("POOL-01", op))["x"]
    y, terms = bounds.pool(op, x, FULL)
    total = ops.windows(x, op.window, op.stride, op.padding, 0.0).sum(axis=(4, 5))
    assert ratio(total / op.window**2, y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", SES, ids=["relu", "silu"])
def test_squeeze_and_excitation(op, regime):
    for seed in SEEDS:
        a = arrays("SE-01", op, regime, seed)
        w = wide(a)
        y, terms = bounds.squeeze_excite(op, w["x"], values(w), FULL)
        np.testing.assert_allclose(y, ops.squeeze_excite(op, *w.values()), rtol=1e-13)
        assert ratio(squeeze_excite(op, *a.values()), y, terms) <= 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", SES, ids=["relu", "silu"])
def test_squeeze_and_excitation_gradients(op, regime):
    for seed in SEEDS:
        a = arrays("SE-02", op, regime, seed)
        w = wide(a)
        exact = bounds.squeeze_excite_gradient(op, w["dy"], w["x"], values(w), FULL)
        by_hand = dict(zip(exact, derivatives.squeeze_excite(op, *w.values()), strict=True))
        computed = squeeze_excite_gradient(op, *a.values())
        for name, (value, terms) in exact.items():
            size = np.abs(value).max()
            np.testing.assert_allclose(value, by_hand[name], rtol=1e-11, atol=1e-13 * size)
            assert ratio(computed[name], value, terms) <= 1.0, name


def _mean_without_a_row(op, x, v):
    gate = ops.squeeze_excite(op, x[:, 1:], *v)[:, :1] / x[:, 1:2]
    return gate * x


SE_MISTAKES = {
    "gain": lambda op, x, v: ops.squeeze_excite(replace(op, gain=1.0), x, *v),
    "gamma": lambda op, x, v: ops.squeeze_excite(replace(op, gamma=1.01 * op.gamma), x, *v),
    "activation": lambda op, x, v: ops.squeeze_excite(replace(op, activation="gelu_erf"), x, *v),
    "second bias": lambda op, x, v: ops.squeeze_excite(op, x, *v[:3], 0.0 * v[3]),
    "mean": _mean_without_a_row,
}


@pytest.mark.parametrize("mistake", SE_MISTAKES)
def test_a_mistake_in_squeeze_and_excitation_is_beyond(mistake):
    w = wide(arrays("SE-01", SE))
    y, terms = bounds.squeeze_excite(SE, w["x"], values(w), FULL)
    assert ratio(SE_MISTAKES[mistake](SE, w["x"], values(w)), y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", ECAS, ids=["3", "5"])
def test_eca(op, regime):
    for seed in SEEDS:
        a = arrays("ECA-01", op, regime, seed)
        w = wide(a)
        y, terms = bounds.eca(op, *w.values(), FULL)
        np.testing.assert_allclose(y, ops.eca(op, *w.values()), rtol=1e-13)
        assert ratio(eca(op, *a.values()), y, terms) <= 1.0
        assert ratio(ops.eca(op, w["x"], w["kernel"][::-1]), y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("op", ECAS, ids=["3", "5"])
def test_eca_gradients(op, regime):
    for seed in SEEDS:
        a = arrays("ECA-02", op, regime, seed)
        w = wide(a)
        exact = bounds.eca_gradient(op, *w.values(), FULL)
        by_hand = dict(zip(exact, derivatives.eca(op, *w.values()), strict=True))
        computed = eca_gradient(op, *a.values())
        for name, (value, terms) in exact.items():
            size = np.abs(value).max()
            np.testing.assert_allclose(value, by_hand[name], rtol=1e-11, atol=1e-13 * size)
            assert ratio(computed[name], value, terms) <= 1.0, name
            assert ratio(1.001 * value, value, terms) > 1.0, name


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
def test_dense(regime):
    for seed in SEEDS:
        a = arrays("FC-01", DENSE, regime, seed)
        w = wide(a)
        y, terms = bounds.dense(DENSE, w["x"], w["kernel"], w["bias"], FULL)
        np.testing.assert_allclose(y, w["x"] @ w["kernel"] + w["bias"], rtol=1e-13)
        assert ratio(matmul(a["x"], a["kernel"]) + a["bias"], y, terms) <= 1.0
        assert ratio(y + 1e-3 * w["bias"], y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
def test_dense_gradients(regime):
    a = arrays("FC-02", DENSE, regime)
    w = wide(a)
    exact = bounds.dense_gradient(DENSE, w["dy"], w["x"], w["kernel"], FULL)
    computed = {
        "x": matmul(a["dy"], np.ascontiguousarray(a["kernel"].T)),
        "kernel": matmul(np.ascontiguousarray(a["x"].T), a["dy"]),
        "bias": summed(a["dy"]),
    }
    assert set(computed) == set(exact)
    for name, (value, terms) in exact.items():
        assert ratio(computed[name], value, terms) <= 1.0, name
        assert ratio(1.0001 * value, value, terms) > 1.0, name


@pytest.mark.parametrize("op", RESIDUALS, ids=["learned", "fixed"])
def test_where_branches_meet(op):
    for seed in SEEDS:
        a = arrays("RES-01", op, "normal", seed)
        w = wide(a)
        gain = w.get("skip_gain")
        y, terms = bounds.residual(op, w["x"], w["shortcut"], gain, FULL)
        factor = op.alpha * (1.0 if gain is None else gain)
        np.testing.assert_allclose(y, factor * w["x"] + w["shortcut"], rtol=1e-14)
        branch = F(op.alpha) * a["x"]
        branch = branch if gain is None else a["skip_gain"] * branch
        assert ratio(branch + a["shortcut"], y, terms) <= 1.0
        wrong = 1.001 * factor * w["x"] + w["shortcut"]
        assert ratio(wrong, y, terms) > 1.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
def test_global_pool(regime):
    op = p.GlobalPool("op", ("x",))
    for seed in SEEDS:
        x = arrays("MEAN-01", op, regime, seed)["x"]
        y, terms = bounds.global_pool(op, x.astype(np.float64), FULL)
        np.testing.assert_allclose(y, x.astype(np.float64).mean(axis=(1, 2)), rtol=1e-13)
        assert ratio(mean(x), y, terms) <= 1.0
        assert ratio(x[:, 1:].mean(axis=(1, 2), dtype=np.float64), y, terms) > 1.0


def test_every_activation_has_a_float32_formula():
    assert set(FUNCTIONS) == set(DEEPMIND_GAMMA)


@pytest.mark.parametrize("kind", ["gelu_tanh", "gelu_erf", "silu"])
def test_nothing_is_allowed_where_an_activation_is_saturated(kind):
    """A slope of 1 or 0 and a value of x or 0, whatever the size of x."""
    op = p.Activation("op", ("x",), kind, 0.0, 1.0, 1.0, "after")
    x = np.array([-1e38, -1e4, -129.0, 129.0, 1e4, 1e38])
    y, terms = bounds.activation(op, x, FULL)
    dx, of_slope = bounds.activation_gradient(op, np.ones(6), x, FULL)
    assert (sum(terms.values()) <= 20.0 * 2.0**-24 * np.abs(y) + 2.0**-126).all()
    assert (sum(of_slope.values()) <= 40.0 * 2.0**-24 + 2.0**-126).all()
    np.testing.assert_allclose(y, np.maximum(x, 0.0), atol=1e-50)
    np.testing.assert_allclose(dx, x > 0.0, atol=1e-50)
