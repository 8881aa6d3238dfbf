"""Each derivative, written by hand, against central differences of the operation itself.

With L = Σ c·y for a random c, every element of dL/dx is compared with (L(x + h) - L(x - h)) / 2h, h
being a step times the size of x (its root mean square). In units of that size, the operations here
have third derivatives of at most 6 times the Σ|c·y| = S of their outputs, and rounding moves S by
less than 20 u: the difference is off by less than (step² + 20 u / step) · S, 3e-10 · S.
"""

from dataclasses import replace

import numpy as np
import pytest

from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Init,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
)
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.reference.derivatives import slope, standardise, vjp
from nfspec.reference.network import evaluate

STEP = 2.0**-17
BOUND = STEP**2 + 20 * 2.0**-53 / STEP

CONV = WSConv(
    "c", ("x",), in_channels=4, out_channels=4, kernel=3, stride=1, groups=2, padding="same",
    eps=1e-4, eps_rule="max", ddof=0, dtype="float32", gamma=1.7, kernel_init=Init("normal", 1.0),
    gain_init=1.0,
)  # fmt: skip


def check(op, inputs, values):
    """Every derivative of an operation, by its inputs and by its parameters."""
    rng = np.random.default_rng(9)
    y = evaluate(op, inputs, values)
    c = rng.standard_normal(y.shape)
    of_inputs, of_values = vjp(op, c, inputs, values)
    actual, arrays = [*of_inputs, *of_values], [*inputs, *values]
    assert [d.shape for d in actual] == [a.shape for a in arrays]
    for i, (derivative, array) in enumerate(zip(actual, arrays, strict=True)):
        size = np.sqrt(np.mean(array**2))
        exact = np.empty_like(array)
        for at in np.ndindex(array.shape):
            ends = []
            for h in (STEP * size, -STEP * size):
                moved = [a.copy() for a in arrays]
                moved[i][at] += h
                ends.append((c * evaluate(op, moved[: len(inputs)], moved[len(inputs) :])).sum())
            exact[at] = (ends[0] - ends[1]) / (2 * STEP * size)
        assert np.abs(derivative - exact).max() * size <= BOUND * np.abs(c * y).sum()


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(("stride", "size"), [(1, (3, 4)), (2, (5, 4)), (2, (4, 5)), (3, (7, 5))])
def test_conv(padding, stride, size):
    x, kernel, gain, bias = normal((1, *size, 4), (3, 3, 2, 4), (4,), (4,))
    check(replace(CONV, padding=padding, stride=stride), [x], [kernel, gain, bias])


@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
def test_a_dilated_conv(padding):
    x, kernel, gain, bias = normal((1, 6, 5, 4), (3, 3, 2, 4), (4,), (4,))
    check(replace(CONV, padding=padding, dilation=2), [x], [kernel, gain, bias])


def test_an_average_that_counts_zeros():
    (x,) = normal((1, 4, 3, 2))
    check(Pool("p", ("x",), "avg", 2, 1, "same", counted=True), [x], [])


@pytest.mark.parametrize(("groups", "kernel"), [(1, 3), (4, 3), (1, 1), (2, 2)])
def test_conv_of_other_groups_and_kernels(groups, kernel):
    op = replace(CONV, out_channels=8, groups=groups, kernel=kernel, stride=2)
    check(op, normal((2, 5, 3, 4)), normal((kernel, kernel, 4 // groups, 8), (8,), (8,), seed=1))


@pytest.mark.parametrize("rule", ["max", "add", "add_to_std", "none"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # at 1e-3, eps decides
def test_weight_standardisation(rule, ddof, scale):
    op = replace(CONV, eps_rule=rule, ddof=ddof, eps=1e-2)
    x, kernel, gain, bias = normal((1, 3, 2, 4), (3, 3, 2, 4), (4,), (4,))
    check(op, [x], [scale * kernel + 0.5 * scale, gain, bias])


@pytest.mark.parametrize(
    ("rule", "divisor"),
    [("max", 1e-4**0.5), ("add", (18 * 1e-4) ** 0.5), ("add_to_std", 18**0.5 * 1e-4)],
)
def test_at_a_constant_kernel_the_divisor_is_that_of_eps(rule, divisor):
    gain, dy = normal((4,), (3, 3, 2, 4))
    op = replace(CONV, eps_rule=rule)
    dkernel, dgain = standardise(op, dy, np.full((3, 3, 2, 4), 0.5), gain)
    exact = 1.7 * gain / divisor * (dy - dy.mean(axis=(0, 1, 2)))
    assert dkernel == pytest.approx(exact, rel=1e-12)  # a dozen roundings of u, and cancellation
    assert not dgain.any()


@pytest.mark.parametrize("kind", sorted(DEEPMIND_GAMMA))
@pytest.mark.parametrize("beta_at", ["after", "before"])
def test_activation(kind, beta_at):
    # No value nearer than 0.01 to a kink: 0 and 6, and 7.5, where beta · x is 6.
    x = np.linspace(-3.0, 8.0, 44).reshape(1, 4, 11, 1)
    check(Activation("a", ("x",), kind, 0.2, 1.7, 0.8, beta_at), [x], [])


def test_an_unknown_activation_is_refused():
    with pytest.raises(KeyError, match="swish"):
        slope("swish", np.zeros(1), 0.0)


def test_at_a_kink_the_derivative_is_that_on_the_left():
    kinks = {("relu", 0.0): 0.0, ("relu6", 0.0): 0.0, ("leaky_relu", 0.0): 0.2}
    kinks |= {("selu", 0.0): 1.0507009873554805 * 1.6732632423543772, ("elu", 0.0): 1.0}
    kinks |= {("relu6", 6.0): 0.0}
    for (kind, at), exact in kinks.items():
        assert slope(kind, np.array([at]), 0.2)[0] == pytest.approx(exact, rel=1e-15), kind


@pytest.mark.parametrize("kind", sorted(DEEPMIND_GAMMA))
def test_activations_far_out_have_a_finite_derivative(kind):
    assert np.isfinite(slope(kind, np.array([-1e4, -800.0, -40.0, 40.0, 800.0, 1e4]), 0.2)).all()


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_pool(kind, padding, window, stride):
    # No two values nearer than 0.1; odd sides leave a ragged edge.
    x = np.random.default_rng(0).permutation(70).reshape(1, 5, 7, 2) / 10.0
    check(Pool("p", ("x",), kind, window, stride, padding), [x], [])


def test_of_equals_in_a_window_the_first_gets_a_maximums_derivative():
    op = Pool("p", ("x",), "max", 2, 2, "same")
    dy = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    (actual,), _ = vjp(op, dy, [np.zeros((1, 4, 4, 1))], [])
    exact = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    assert actual[0, :, :, 0].tolist() == exact


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_squeeze_excite(activation):
    op = SqueezeExcite("se", ("x",), 4, 3, 2.0, activation, 0.01, 1.5, "normal")
    x, w0, b0, w1, b1 = normal((2, 3, 5, 4), (4, 3), (3,), (3, 4), (4,))
    check(op, [x], [w0, b0, w1, b1])  # the relu passes two of six


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_eca(kernel):
    check(ECA("e", ("x",), 6, kernel, 2.0), normal((2, 2, 3, 6)), normal((kernel,), seed=1))


@pytest.mark.parametrize("gain", [[], [np.array(0.6)]])
def test_residual(gain):
    op = Residual("r", ("x", "skip"), "b", 0.2, bool(gain), 0.0)
    check(op, normal((1, 2, 3, 4), (1, 2, 3, 4)), gain)


@pytest.mark.parametrize("activation", ["identity", "silu", "leaky_relu"])
def test_folded_conv(activation):
    op = Conv("c", ("x",), 4, 4, 3, 2, 2, "same", activation, 0.1)
    check(op, normal((2, 3, 5, 4)), normal((3, 3, 2, 4), (4,), seed=1))


def test_head():
    check(GlobalPool("p", ("x",)), normal((2, 3, 5, 4)), [])
    check(Dense("d", ("x",), 4, 3, 0.01), normal((2, 4)), normal((4, 3), (3,), seed=1))


@pytest.mark.parametrize("op", [StochasticDepth("s", ("x",), 0.5, True), Dropout("d", ("x",), 0.5)])
def test_nothing_is_dropped(op):
    check(op, normal((2, 2, 3, 4)), [])
