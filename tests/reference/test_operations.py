"""The oracle's operations against loops that follow the definitions, on shapes that tell."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nfspec.plan import ECA, Init, Pool, SqueezeExcite, WSConv
from nfspec.reference import operations as ops

CONV = WSConv(
    "c", ("x",), in_channels=6, out_channels=4, kernel=3, stride=1, groups=2, padding="same",
    eps=1e-4, eps_rule="max", ddof=0, dtype="float32", gamma=1.0, kernel_init=Init("normal", 1.0),
    gain_init=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "expected"),
    [
        (8, 3, 2, "same", (0, 1)),
        (7, 3, 2, "same", (1, 1)),
        (8, 3, 1, "same", (1, 1)),
        (8, 7, 2, "same", (2, 3)),
        (9, 2, 2, "same", (0, 1)),
        (8, 1, 2, "same", (0, 0)),
        (8, 3, 2, "symmetric", (1, 1)),
        (8, 7, 2, "symmetric", (3, 3)),
        (8, 3, 2, "valid", (0, 0)),
    ],
)
def test_pads(side, kernel, stride, padding, expected):
    assert ops.pads(side, kernel, stride, padding) == expected


@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(("stride", "size"), [(1, (5, 6)), (2, (5, 6)), (2, (6, 7)), (3, (7, 7))])
def test_conv_is_a_grouped_cross_correlation(padding, stride, size):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, *size, 6)), rng.standard_normal((3, 3, 3, 4))
    actual = ops.conv(x, kernel, stride, 2, padding)
    top, bottom = ops.pads(size[0], 3, stride, padding)
    left, right = ops.pads(size[1], 3, stride, padding)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    for n, h, w, o in itertools.product(*map(range, actual.shape)):
        group = slice(0, 3) if o < 2 else slice(3, 6)
        window = padded[n, h * stride : h * stride + 3, w * stride : w * stride + 3, group]
        assert actual[n, h, w, o] == pytest.approx((window * kernel[..., o]).sum(), rel=1e-12)


@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(("dilation", "side"), [(2, 3), (3, 3), (2, 5)])
def test_a_dilated_conv_is_a_conv_of_a_kernel_with_zeros_between(padding, dilation, side):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 9, 12, 6)), rng.standard_normal((side, side, 3, 4))
    spread = np.zeros((1 + dilation * (side - 1),) * 2 + (3, 4))
    spread[::dilation, ::dilation] = kernel
    actual = ops.conv(x, kernel, 1, 2, padding, dilation)
    np.testing.assert_allclose(actual, ops.conv(x, spread, 1, 2, padding), rtol=1e-12, atol=1e-12)


def test_a_standardised_kernel_has_mean_zero_and_norm_gain_times_gamma():
    kernel = np.random.default_rng(1).standard_normal((3, 3, 3, 4)) + 5.0
    gain = np.array([1.0, 0.5, 2.0, -1.0])
    actual = ops.standardise(replace(CONV, gamma=1.7), kernel, gain)
    assert np.abs(actual.sum(axis=(0, 1, 2))).max() < 1e-13
    assert np.sqrt((actual**2).sum(axis=(0, 1, 2))) == pytest.approx(1.7 * np.abs(gain), rel=1e-13)


@pytest.mark.parametrize(
    ("rule", "ddof", "divisor"),
    [
        ("max", 0, lambda n, v, eps: max(n * v, eps) ** 0.5),
        ("add", 0, lambda n, v, eps: (n * (v + eps)) ** 0.5),
        ("add_to_std", 0, lambda n, v, eps: n**0.5 * (v**0.5 + eps)),
        ("max", 1, lambda n, v, eps: max(n * v * n / (n - 1), eps) ** 0.5),
        ("none", 0, None),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # at 1e-3, eps decides
def test_rules_of_eps(rule, ddof, divisor, scale):
    kernel = scale * np.random.default_rng(2).standard_normal((3, 3, 3, 4))
    op = replace(CONV, eps_rule=rule, ddof=ddof, eps=1e-2)
    actual = ops.standardise(op, kernel, np.ones(4))
    for o in range(4):
        w = kernel[..., o]
        exact = (w - w.mean()) / divisor(27, w.var(), 1e-2) if divisor else w
        assert actual[..., o] == pytest.approx(exact, rel=1e-12)


def test_a_constant_kernel_becomes_zero():
    assert not ops.standardise(CONV, np.full((3, 3, 3, 4), 0.5), np.ones(4)).any()


def test_an_average_does_not_count_padding_and_a_maximum_does_not_see_it():
    x = -np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    average = ops.pool(Pool("p", ("x",), "avg", 2, 2, "same"), x)
    assert average[0, :, :, 0].tolist() == [[-3.0, -4.5], [-7.5, -9.0]]
    largest = ops.pool(Pool("p", ("x",), "max", 3, 2, "same"), x)
    assert largest[0, :, :, 0].tolist() == [[-1.0, -2.0], [-4.0, -5.0]]
    largest = ops.pool(Pool("p", ("x",), "max", 3, 2, "symmetric"), x)
    assert largest.shape == (1, 2, 2, 1)


def test_squeeze_excite_gates_channels():
    rng = np.random.default_rng(3)
    op = SqueezeExcite("se", ("x",), 4, 3, 2.0, "relu", 0.01, 1.5, "normal")
    x, w0, b0, w1, b1 = (rng.standard_normal(s) for s in ((2, 3, 5, 4), (4, 3), (3,), (3, 4), (4,)))
    actual = ops.squeeze_excite(op, x, w0, b0, w1, b1)
    for n in range(2):
        hidden = 1.5 * np.maximum(x[n].mean(axis=(0, 1)) @ w0 + b0, 0.0)
        gate = 1.0 / (1.0 + np.exp(-(hidden @ w1 + b1)))
        assert actual[n] == pytest.approx(2.0 * x[n] * gate, rel=1e-12)


def test_eca_slides_over_zero_padded_channels():
    rng = np.random.default_rng(4)
    x, kernel = rng.standard_normal((1, 2, 2, 5)), np.array([1.0, 2.0, -3.0])
    actual = ops.eca(ECA("e", ("x",), 5, 3, 2.0), x, kernel)
    means = [0.0, *x.mean(axis=(0, 1, 2)), 0.0]
    for c in range(5):
        mixed = sum(kernel[j] * means[c + j] for j in range(3))
        assert actual[..., c] == pytest.approx(2.0 / (1.0 + np.exp(-mixed)) * x[..., c], rel=1e-12)


def test_an_average_may_count_zeros_beyond_the_end():
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 2))
    actual = ops.pool(Pool("p", ("x",), "avg", 2, 1, "same", counted=True), x)
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    expected = sum(padded[:, i : i + 3, j : j + 4] for i in (0, 1) for j in (0, 1)) / 4
    np.testing.assert_allclose(actual, expected, rtol=1e-15, atol=1e-15)
