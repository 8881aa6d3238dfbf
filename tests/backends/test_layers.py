"""Each layer in float32 against the oracle, within bounds that follow from float32 rounding."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from nfspec.backends.compiler import layer_of
from nfspec.backends.layers import WSConv2D
from nfspec.plan import ECA, Activation, Init, Pool, SqueezeExcite, WSConv
from nfspec.plan.activations import DEEPMIND_GAMMA, apply
from nfspec.reference import operations as ops

U = 2.0**-24  # unit roundoff of float32

CONV = WSConv(
    "c", ("x",), in_channels=8, out_channels=12, kernel=3, stride=1, groups=2, padding="same",
    eps=1e-4, eps_rule="max", ddof=0, dtype="float32", gamma=1.0, kernel_init=Init("normal", 1.0),
    gain_init=1.0,
)  # fmt: skip


def run(op, x, params, data_format="channels_last"):
    layer = layer_of(op, data_format, "float32")
    layer.given = dict(params)
    first = data_format == "channels_first"
    out = layer(x.transpose(0, 3, 1, 2) if first else x)
    out = keras.ops.convert_to_numpy(out)
    return out.transpose(0, 2, 3, 1) if first and out.ndim == 4 else out


def conv_bound(op, x, kernel, gain, bias):
    """Worst case of any order of summation: n·u of Σ|x||ŵ|, and as much again for ŵ itself.

    A weight of ŵ is off by N·u·(|w| + mean|w|)·s from the mean, the variance and the products
    (Higham 2002, §3.1 and §4.2); `spread` is that, per weight.
    """
    standard = ops.standardise(op, kernel, gain)
    centred = kernel - kernel.mean(axis=(0, 1, 2))
    scale = np.abs(standard).sum(axis=(0, 1, 2)) / np.abs(centred).sum(axis=(0, 1, 2))
    spread = (np.abs(kernel) + np.abs(kernel).mean(axis=(0, 1, 2))) * scale
    total = ops.conv(np.abs(x), np.abs(standard) + spread, *op.sliding)
    return U * ((op.fan_in + 16) * total + 2 * np.abs(bias))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": 2},
        {"stride": 2, "padding": "symmetric"},
        {"stride": 2, "padding": "valid", "groups": 1},
        {"kernel": 7, "groups": 1, "stride": 2},
        {"kernel": 1, "groups": 1, "eps_rule": "add", "eps": 1e-5, "gamma": 1.7},
        {"groups": 4, "eps_rule": "add_to_std", "eps": 1e-2},
        {"ddof": 1, "eps": 1.0},
        {"eps_rule": "none", "gamma": 1.7},
        {"gain_init": None, "gamma": 1.7},
        {"dilation": 2},
        {"dilation": 3, "padding": "symmetric", "groups": 4},
    ],
    ids=str,
)
def test_ws_conv(changes, data_format):
    op = replace(CONV, **changes)
    rng = np.random.default_rng(0)
    shapes = {p.name.removeprefix("c."): p.shape for p in op.parameters}
    params = {n: (rng.standard_normal(s) + 0.5).astype(np.float32) for n, s in shapes.items()}
    x = rng.standard_normal((2, 9, 12, 8)).astype(np.float32)
    output = run(op, x, params, data_format)
    params.setdefault("gain", np.ones(op.out_channels))
    kernel, gain, bias = (params[n].astype(np.float64) for n in ("kernel", "gain", "bias"))
    x64 = x.astype(np.float64)
    standard = ops.standardise(op, kernel, gain)
    exact = ops.conv(x64, standard, *op.sliding) + bias
    assert output.shape == exact.shape
    assert (np.abs(output - exact) <= conv_bound(op, x64, kernel, gain, bias)).all()


@pytest.mark.parametrize("beta_at", ["after", "before"])
@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_activation(kind, beta_at):
    op = Activation("a", ("x",), kind, 0.02, 1.7, 0.9, beta_at)
    x = np.random.default_rng(1).uniform(-8.0, 8.0, (4, 4, 4, 8)).astype(np.float32)
    exact = ops.activation(op, x.astype(np.float64))
    # Functions built on erf, tanh or exp cancel near their zeros: a few u of |x|, not of |f(x)|.
    bound = 16 * U * (np.abs(exact) + 1.7 * (np.abs(x) + 1.0))
    assert (np.abs(run(op, x, {}) - exact) <= bound).all()


def test_the_two_gelus_are_told_apart():
    x = np.full((1, 1, 1, 1), -2.7, np.float32)
    values = [
        float(run(Activation("a", ("x",), kind, 0.01, 1.0, 1.0, "after"), x, {}).item())
        for kind in ("gelu_tanh", "gelu_erf")
    ]
    exact = [float(apply(kind, x.astype(np.float64)).item()) for kind in ("gelu_tanh", "gelu_erf")]
    assert abs(exact[0] - exact[1]) > 4e-4
    assert values == pytest.approx(exact, abs=16 * U)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_squeeze_excite(data_format):
    rng = np.random.default_rng(2)
    op = SqueezeExcite("se", ("x",), 8, 3, 2.0, "relu", 0.01, 1.5, "normal")
    params = {
        p.name.removeprefix("se."): rng.standard_normal(p.shape).astype(np.float32)
        for p in op.parameters
    }
    x = rng.standard_normal((2, 5, 7, 8)).astype(np.float32)
    exact = ops.squeeze_excite(
        op, x.astype(np.float64), *(v.astype(np.float64) for v in params.values())
    )
    # The gate's argument sums under 64 terms of size 10 at most; sigmoid's slope is 1/4, gain is 2.
    bound = U * np.abs(x) * (2 * 0.25 * 64 * 10 + 8)
    assert (np.abs(run(op, x, params, data_format) - exact) <= bound).all()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_eca(kernel, data_format):
    rng = np.random.default_rng(3)
    op = ECA("e", ("x",), 8, kernel, 2.0)
    weights = rng.standard_normal(kernel).astype(np.float32)
    x = rng.standard_normal((2, 5, 7, 8)).astype(np.float32)
    exact = ops.eca(op, x.astype(np.float64), weights.astype(np.float64))
    bound = U * np.abs(x) * (2 * 0.25 * 64 * 10 + 8)
    assert (np.abs(run(op, x, {"kernel": weights}, data_format) - exact) <= bound).all()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize(
    ("kind", "window", "padding"), [("avg", 2, "same"), ("max", 3, "same"), ("max", 3, "symmetric")]
)
def test_pool(kind, window, padding, size, data_format):
    op = Pool("p", ("x",), kind, window, 2, padding)
    x = np.random.default_rng(4).standard_normal((2, *size, 3)).astype(np.float32) - 3.0
    exact = ops.pool(op, x.astype(np.float64))
    output = run(op, x, {}, data_format)
    assert output.shape == exact.shape
    bound = 4 * U * np.abs(exact) if kind == "avg" else 0.0
    assert (np.abs(output - exact) <= bound).all()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_an_average_that_counts_zeros(data_format):
    op = Pool("p", ("x",), "avg", 2, 1, "same", counted=True)
    x = np.random.default_rng(4).standard_normal((2, 7, 8, 3)).astype(np.float32) - 3.0
    exact = ops.pool(op, x.astype(np.float64))
    assert (np.abs(run(op, x, {}, data_format) - exact) <= 4 * U * np.abs(exact)).all()


def test_a_conv_has_no_stride_with_dilation():
    with pytest.raises(ValueError, match="cannot both be above 1"):
        WSConv2D(4, 3, strides=2, dilation=2)
