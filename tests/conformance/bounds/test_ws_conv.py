"""Bounds of the conv with weight standardisation: float32 stays within them, mistakes do not."""

from dataclasses import replace

import numpy as np
import pytest

from nfspec.conformance.bounds import ws_conv as bounds
from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.precision import MODES, narrow, truncated
from nfspec.conformance.cases.regimes import CONV_REGIMES
from nfspec.conformance.cases.target import CONV, target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import wide
from nfspec.plan import WSConv
from nfspec.reference import derivatives
from nfspec.reference import operations as ops

from .float32 import ratio, summed

FULL = MODES["f32"]
OVER = (0, 1, 2)
GRID = target(None).of(WSConv)
RULES = {"max": 1e-4, "add": 1e-5, "add_to_std": 1e-2}
SMALL = {rule: replace(CONV, eps_rule=rule, eps=eps) for rule, eps in RULES.items()}
SMALL["none"] = replace(CONV, eps_rule="none", gamma=0.7)


def standardise(op, w, gain):
    """The kernel, and the steps on the way there: d, Σd², D. All float32, by the formula."""
    if op.eps_rule == "none":
        return w * (np.float32(op.gamma) * gain), w, np.zeros_like(gain), np.ones_like(gain)
    n = np.float32(op.fan_in)
    d = w - summed(w, OVER) / n
    squares = summed(d * d, OVER)
    v = squares / np.float32(op.fan_in - op.ddof)
    eps = np.float32(op.eps)
    divisor = {
        "max": lambda: np.sqrt(np.maximum(n * v, eps)),
        "add": lambda: np.sqrt(n * (v + eps)),
        "add_to_std": lambda: np.sqrt(n) * (np.sqrt(v) + eps),
    }[op.eps_rule]()
    return d * (np.float32(op.gamma) * gain / divisor), d, squares, divisor


def patches(op, x):
    """(taps and inputs of a group, N·Ho·Wo, group), and the output's shape but for channels."""
    view = ops.windows(x, op.kernel, op.stride, op.padding, 0.0, op.dilation)
    inputs = op.in_channels // op.groups
    split = view.reshape(*view.shape[:3], op.groups, inputs, op.kernel, op.kernel)
    taps = split.transpose(5, 6, 4, 0, 1, 2, 3).reshape(op.fan_in, -1, op.groups)
    return taps, view.shape[:3]


def by_group(op, channels):
    """(..., O) to (..., groups, O/groups)."""
    return channels.reshape(*channels.shape[:-1], op.groups, -1)


def conv(op, x, kernel):
    """Every product and every partial sum rounded, tap after tap."""
    taps, shape = patches(op, x)
    rows = by_group(op, kernel.reshape(op.fan_in, -1))
    total = np.zeros((taps.shape[1], *rows.shape[1:]), np.float32)
    for tap, row in zip(taps, rows, strict=True):
        total += tap[..., None] * row
    return total.reshape(*shape, -1)


def forward(op, a):
    return conv(op, a["x"], standardise(op, a["kernel"], a["gain"])[0]) + a["bias"]


def input_gradient(op, dy, x, kernel):
    """Σ dy·ŵ, tap by tap and output channel by output channel."""
    sides = [ops.pads(n, op.extent, op.stride, op.padding) for n in x.shape[1:3]]
    padded = np.zeros_like(np.pad(x, [(0, 0), *sides, (0, 0)]))
    dx = by_group(op, padded)
    height, width = ((n - 1) * op.stride + 1 for n in dy.shape[1:3])
    dys, ws = by_group(op, dy), by_group(op, kernel)
    for i, j in np.ndindex(op.kernel, op.kernel):
        top, left = i * op.dilation, j * op.dilation
        seen = dx[:, top : top + height : op.stride, left : left + width : op.stride]
        for o in range(dys.shape[-1]):
            seen += dys[..., o, None] * ws[i, j, :, :, o].T
    (top, _), (left, _) = sides
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def gradients(op, a):
    """By images, kernel, gain and bias; pixel after pixel, then by the formulas."""
    n, dy = np.float32(op.fan_in), a["dy"]
    kernel, d, squares, divisor = standardise(op, a["kernel"], a["gain"])
    taps, _ = patches(op, a["x"])
    of_kernel = np.zeros((op.fan_in, op.groups, op.out_channels // op.groups), np.float32)
    rows = by_group(op, dy.reshape(-1, dy.shape[-1]))
    for pixel, row in zip(taps.transpose(1, 0, 2), rows, strict=True):
        of_kernel += pixel[..., None] * row
    g = of_kernel.reshape(kernel.shape)

    v = squares / np.float32(op.fan_in - op.ddof)
    if op.eps_rule == "max":
        sensitivity = np.where(n * v > np.float32(op.eps), np.float32(1.0), np.float32(0.0))
    elif op.eps_rule == "add":
        sensitivity = v / (v + np.float32(op.eps))
    elif op.eps_rule == "none":
        sensitivity = np.zeros_like(v)
    else:
        sensitivity = np.sqrt(v) / (np.sqrt(v) + np.float32(op.eps))
    along = summed(g * d, OVER)
    a_scale = np.float32(op.gamma) * a["gain"] / divisor
    pull = a_scale * sensitivity * along / np.maximum(squares, np.float32(1e-37))
    moved = a_scale * g - pull * d
    return {
        "x": input_gradient(op, dy, a["x"], kernel),
        "kernel": moved - (op.eps_rule != "none") * summed(moved, OVER) / n,
        "gain": np.float32(op.gamma) * along / divisor,
        "bias": summed(dy, OVER),
    }


def case(op, regime, seed=0, property_id="WS-02"):
    return Case(property_id, seed, regime, op=op, shape=(2, 7, 6, op.in_channels))


def arrays(op, regime, seed=0):
    (call,) = PROPERTIES["WS-02"].calls(case(op, regime, seed))
    return call


def bound(op, a, precision=FULL):
    return bounds.forward(op, a["x"], a["kernel"], a["gain"], a["bias"], precision)


@pytest.mark.parametrize("regime", CONV_REGIMES)
@pytest.mark.parametrize("op", GRID, ids=range(len(GRID)))
def test_float32_stays_within(op, regime):
    a = arrays(op, regime)
    y, terms, _ = bound(op, wide(a))
    computed = forward(op, a)
    assert computed.dtype == np.float32
    assert ratio(computed, y, terms) <= 1.0


@pytest.mark.parametrize("regime", CONV_REGIMES)
@pytest.mark.parametrize("op", GRID, ids=range(len(GRID)))
def test_float32_gradients_stay_within(op, regime):
    a = arrays(op, regime)
    w = wide(a)
    exact, _ = bounds.gradients(op, w["dy"], w["x"], w["kernel"], w["gain"], FULL)
    computed = gradients(op, a)
    assert {name: v.dtype for name, v in computed.items()} == dict.fromkeys(exact, np.float32)
    ratios = {name: ratio(computed[name], *exact[name]) for name in exact}
    assert max(ratios.values()) <= 1.0, ratios


@pytest.mark.parametrize("rule", SMALL)
def test_the_bounds_are_not_vacuous(rule):
    """The worst of some thousand elements is within a fortieth of each bound."""
    op = SMALL[rule]
    near = dict.fromkeys(("y", "x", "kernel", "gain", "bias"), 0.0)
    for seed in range(10):
        a = arrays(op, "normal", seed)
        w = wide(a)
        y, terms, _ = bound(op, w)
        exact, _ = bounds.gradients(op, w["dy"], w["x"], w["kernel"], w["gain"], FULL)
        ratios = {name: ratio(g, *exact[name]) for name, g in gradients(op, a).items()}
        ratios["y"] = ratio(forward(op, a), y, terms)
        near = {name: max(r, ratios[name]) for name, r in near.items()}
    assert min(near.values()) >= 1 / 40, near


@pytest.mark.parametrize("regime", ["normal", "positive", "outlier"])
@pytest.mark.parametrize("mode, bits", [("tf32", 10), ("bf16", 7)])
def test_operands_rounded_as_the_mode_says(mode, bits, regime):
    op = CONV
    a = arrays(op, regime)
    y, terms, _ = bound(op, wide(a), MODES[mode])
    kernel = truncated(standardise(op, a["kernel"], a["gain"])[0], bits)
    out = conv(op, truncated(a["x"], bits), kernel) + a["bias"]
    assert 1 / 40 <= ratio(out, y, terms) <= 1.0
    full = bound(op, wide(a))[1]
    assert ratio(out, y, full) > 1.0


@pytest.mark.parametrize("op", GRID, ids=range(len(GRID)))
def test_exact_values_are_the_references(op):
    a = wide(arrays(op, "eps"))
    y, _, s = bound(op, a)
    kernel = ops.standardise(op, a["kernel"], a["gain"])
    expected = ops.conv(a["x"], kernel, *op.sliding) + a["bias"]
    np.testing.assert_allclose(s.kernel, kernel, rtol=1e-13)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    by_argument, _ = bounds.gradients(op, a["dy"], a["x"], a["kernel"], a["gain"], FULL)
    exact = derivatives.ws_conv(op, a["dy"], a["x"], a["kernel"], a["gain"])
    for (name, (value, _)), want in zip(by_argument.items(), exact, strict=True):
        size = np.abs(want).max()
        np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-13 * size, err_msg=name)


def wrong_mean(op, a):
    scale = ops.standardise(op, a["kernel"], a["gain"])
    d = a["kernel"] - a["kernel"].mean(axis=OVER)
    return {"standard": a["kernel"] * (scale / d)}


MISTAKES = {
    "ddof": lambda op, a: {"op": replace(op, ddof=1)},
    "mean": wrong_mean,
    "eps": lambda op, a: {"op": replace(op, eps=10 * op.eps)},
    "gain": lambda op, a: {"gain": a["gain"] * 1.0001},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_beyond(mistake, rule):
    op, regime = SMALL[rule], "eps" if mistake == "eps" else "normal"
    a = wide(arrays(op, regime))
    y, terms, _ = bound(op, a)
    wrong = MISTAKES[mistake](op, a)
    other = wrong.get("op", op)
    kernel = ops.standardise(other, a["kernel"], wrong.get("gain", a["gain"]))
    kernel = wrong.get("standard", kernel)
    wrong = ops.conv(a["x"], kernel, *op.sliding) + a["bias"]
    assert ratio(wrong, y, terms) > 1.0


@pytest.mark.parametrize("rule", RULES)
def test_a_mistake_in_a_gradient_is_beyond(rule):
    """No gradient through the mean, or none through the variance."""
    op = SMALL[rule]
    a = wide(arrays(op, "normal"))
    by_argument, s = bounds.gradients(op, a["dy"], a["x"], a["kernel"], a["gain"], FULL)
    _, g = derivatives.conv(a["dy"], a["x"], s.kernel, *op.sliding)
    exact, terms = by_argument["kernel"]
    without_mean = exact + (s.scale * g).mean(axis=OVER)
    along = (g * s.centred).sum(axis=OVER) / (s.centred**2).sum(axis=OVER)
    without_variance = exact + s.scale * s.sensitivity * along * s.centred
    assert ratio(without_mean, exact, terms) > 1.0
    assert ratio(without_variance, exact, terms) > 1.0


def test_standardisation_is_beyond_where_a_conv_has_none():
    """In the output and in the kernel's gradient; and so is another gamma."""
    op = SMALL["none"]
    a = wide(arrays(op, "normal"))
    y, terms, s = bound(op, a)
    for other in (replace(op, eps_rule="max"), replace(op, gamma=0.7001)):
        kernel = ops.standardise(other, a["kernel"], a["gain"])
        assert ratio(ops.conv(a["x"], kernel, *op.sliding) + a["bias"], y, terms) > 1.0
    by_argument, _ = bounds.gradients(op, a["dy"], a["x"], a["kernel"], a["gain"], FULL)
    _, g = derivatives.conv(a["dy"], a["x"], s.kernel, *op.sliding)
    wrong, _ = derivatives.standardise(replace(op, eps_rule="max"), g, a["kernel"], a["gain"])
    assert ratio(wrong, *by_argument["kernel"]) > 1.0


def one_pass(op, a):
    """E[w²] - m², in float32."""
    n, w = np.float32(op.fan_in), a["kernel"]
    mean = summed(w, OVER) / n
    v = np.maximum(summed(w * w, OVER) / n - mean * mean, np.float32(0.0))
    return (w - mean) * (a["gain"] / np.sqrt(np.maximum(n * v, np.float32(op.eps))))


def test_a_one_pass_variance_is_beyond_where_the_mean_is_large():
    a = arrays(CONV, "offset")
    y, terms, _ = bound(CONV, wide(a))
    assert ratio(conv(CONV, a["x"], one_pass(CONV, a)) + a["bias"], y, terms) > 1.0


def one_channel_each(variances):
    """Kernels of 4 weights of mean 1 and these variances, of a 1x1 conv."""
    sign = np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    return (1.0 + sign * np.sqrt(variances))[None, None]


@pytest.mark.parametrize(
    "rule, variances",
    [
        ("max", [0.2, 0.3]),  # of eps; n·v is four times as much
        ("add", [8.9, 9.1]),  # v / (v + eps) is 0.9 at nine times
        ("add_to_std", [8.9**2, 9.1**2]),
    ],
)
def test_where_eps_is_said_to_decide(rule, variances):
    eps = 1e-2
    unit = eps**2 if rule == "add_to_std" else eps
    op = replace(CONV, kernel=1, in_channels=4, out_channels=2, eps_rule=rule, eps=eps)
    kernel = one_channel_each(np.array(variances) * unit)
    s = bounds.standard(op, kernel, np.ones(2), FULL)
    assert s.active.tolist() == [True, False]


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("rule", RULES)
def test_constant_kernels(rule, value):
    op = SMALL[rule]
    a = wide(arrays(op, "normal"))
    a["kernel"] = np.full(a["kernel"].shape, value)
    y, terms, s = bound(op, a)
    np.testing.assert_allclose(y, a["bias"] + np.zeros_like(y), atol=1e-10)
    assert s.active.all()
    by_argument, _ = bounds.gradients(op, a["dy"], a["x"], a["kernel"], a["gain"], FULL)
    for exact, of in ((y, terms), *by_argument.values()):
        assert np.isfinite(exact).all()
        assert all(np.isfinite(term).all() for term in of.values())


def test_the_bound_does_not_depend_on_the_order_of_channels():
    """A group's channels exchanged, in images and kernels alike."""
    a = wide(regimes.conv(case(CONV, "normal", property_id="WS-01")))
    order = np.random.default_rng(0).permutation(CONV.in_channels)
    b = {**a, "x": a["x"][..., order], "kernel": a["kernel"][:, :, order]}
    for one, other in zip(bound(CONV, a)[1].values(), bound(CONV, b)[1].values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def standardised_narrowly(op, a, mode):
    """The output where weights and every step of their standardisation are stored in a mode."""

    def stored(array):
        return np.float64(narrow(array, mode))

    x, w, gain, bias = (stored(a[name]) for name in ("x", "kernel", "gain", "bias"))
    if op.eps_rule == "none":
        kernel = stored(w * stored(op.gamma * gain))
        return stored(ops.conv(x, kernel, *op.sliding) + bias)
    d = stored(w - stored(w.mean(OVER)))
    v = stored(stored(d * d).sum(OVER) / (op.fan_in - op.ddof))
    divisor = {
        "max": lambda: np.sqrt(np.maximum(op.fan_in * v, op.eps)),
        "add": lambda: np.sqrt(op.fan_in * (v + op.eps)),
        "add_to_std": lambda: np.sqrt(op.fan_in) * (np.sqrt(v) + op.eps),
    }[op.eps_rule]()
    kernel = stored(d * stored(op.gamma * gain / stored(divisor)))
    return stored(ops.conv(x, kernel, *op.sliding) + bias)


@pytest.mark.parametrize("regime", CONV_REGIMES)
def test_statistics_in_the_computations_dtype_stay_within_where_a_spec_has_them(regime):
    """And beyond the bound where it does not: weights of a large mean show it."""
    within, beyond = [], []
    for rule, op in SMALL.items():
        a = regimes.conv(case(op, regime, property_id="WS-01"))
        computed = standardised_narrowly(op, a, "bf16")
        for dtype, ratios in (("compute", within), ("float32", beyond)):
            y, terms, _ = bound(replace(op, dtype=dtype), wide(a), MODES["bf16"])
            if dtype == "compute" or rule in RULES:
                ratios.append(ratio(computed, y, terms))
    assert max(within) <= 0.5
    assert regime != "offset" or min(beyond) > 10.0
