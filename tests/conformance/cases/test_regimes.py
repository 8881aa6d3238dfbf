"""Regimes: each draws what its name says, the same each time."""

from dataclasses import replace

import numpy as np
import pytest

from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import Case, Clip, digest
from nfspec.conformance.cases.precision import LARGEST, narrow
from nfspec.conformance.cases.regimes import CLIP_REGIMES, CONV_REGIMES, IMAGE_REGIMES, RANGE
from nfspec.conformance.cases.target import CONV, SE, target
from nfspec.plan import Activation
from nfspec.plan.clipping import LEAST_GRADIENT_NORM
from nfspec.reference import operations

OVER = (0, 1, 2)
KERNEL = Clip("kernel", (3, 3, 16, 32), "squeeze", 0.01, 1e-3)
WIDE = replace(CONV, in_channels=64, out_channels=32)
CLIPS = [clip for clip in target(None).clips if clip.rule.units > 1]


def conv(regime, op=WIDE, seed=0):
    return regimes.conv(Case("WS-01", seed, regime, op=op, shape=(2, 7, 6, op.in_channels)))


def clipping(regime, op=KERNEL, seed=0, mode="f32"):
    return regimes.clipping(Case("AGC-01", seed, regime, mode, op=op))


def norms(op, arrays):
    """Norms of the gradient and of the parameter, unit by unit, and the limits."""
    axes = tuple(range(len(op.shape))) if op.rule.axes is None else op.rule.axes
    g, p = (
        np.sqrt((arrays[name].astype(np.float64) ** 2).sum(axis=axes))
        for name in ("gradient", "parameter")
    )
    return g, p, op.rule.clipping * np.maximum(p, op.rule.eps)


@pytest.mark.parametrize("regime", CONV_REGIMES)
def test_convs_are_drawn_the_same_each_time(regime):
    assert digest([conv(regime)]) == digest([conv(regime)])
    assert digest([conv(regime)]) != digest([conv(regime, seed=1)])
    assert {a.dtype for a in conv(regime).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("regime", CLIP_REGIMES)
def test_gradients_are_drawn_the_same_each_time(regime):
    assert digest([clipping(regime)]) == digest([clipping(regime)])
    assert digest([clipping(regime)]) != digest([clipping(regime, seed=1)])


def test_normal_kernels_have_fan_in_scale_and_no_mean():
    kernel = conv("normal")["kernel"]
    n = WIDE.fan_in
    assert kernel.std(axis=OVER) == pytest.approx(n**-0.5, rel=0.2)
    assert np.abs(kernel.mean(axis=OVER) * n).max() <= 4.0  # deviations of a mean of n draws


def test_offset_kernels_have_a_mean_of_a_hundred_deviations():
    kernel = conv("offset")["kernel"]
    assert kernel.mean(axis=OVER) / kernel.std(axis=OVER) == pytest.approx(100.0, rel=0.15)


@pytest.mark.parametrize("rule, eps", [("max", 1e-4), ("add", 1e-5), ("add_to_std", 1e-2)])
def test_eps_is_met_on_both_sides(rule, eps):
    op = replace(WIDE, eps_rule=rule, eps=eps)
    variance = conv("eps", op)["kernel"].astype(np.float64).var(axis=OVER)
    at = {"max": op.fan_in * variance, "add": variance, "add_to_std": np.sqrt(variance)}[rule]
    assert (at < eps / 2).any() and (at > 2 * eps).any()
    # Within a factor of e^6 of it: where it is still seen.
    assert (at > eps / 500).all() and (at < 500 * eps).all()


def test_gains_have_both_signs_and_none_is_near_0():
    gain = conv("normal")["gain"]
    assert (gain < 0).any() and (gain > 0).any()
    assert 0.5 <= np.abs(gain).min() <= np.abs(gain).max() <= 2.0


@pytest.mark.parametrize("regime", IMAGE_REGIMES)
@pytest.mark.parametrize("shape", [(2, 7, 6, 16), (8, 16)])
def test_images(shape, regime):
    x = regimes.images(np.random.default_rng(0), shape, regime)
    sizes = np.sqrt((x**2).mean(axis=tuple(range(len(shape) - 1))))
    if regime == "positive":
        assert x.min() >= 5.0
    elif regime == "outlier":
        (one,) = np.flatnonzero(sizes > 30.0)
        assert np.delete(sizes, one).max() < 2.0
    else:
        assert sizes.min() > 0.3 and sizes.max() < 2.0
        assert x.min() < 0.0


def test_a_layers_parameters_have_its_names_and_shapes():
    drawn = regimes.layer(Case("SE-01", op=SE, shape=(2, 7, 6, 16)))
    shapes = {name: array.shape for name, array in drawn.items()}
    assert list(shapes.items()) == [
        ("x", (2, 7, 6, 16)),
        ("fc0.kernel", (16, 8)),
        ("fc0.bias", (8,)),
        ("fc1.kernel", (8, 16)),
        ("fc1.bias", (16,)),
    ]


@pytest.mark.parametrize("regime", ["some", "boundary", "tiny"])
def test_some_units_are_clipped_and_some_are_not(regime):
    g, _, limit = norms(KERNEL, clipping(regime))
    assert 4 <= (g > limit).sum() <= 28


def test_every_unit_is_clipped_where_gradients_are_large():
    g, _, limit = norms(KERNEL, clipping("large"))
    assert (g > 100.0 * limit).all()


@pytest.mark.parametrize("clip", CLIPS, ids=range(len(CLIPS)))
def test_units_at_the_boundary_are_within_rounding_of_it(clip):
    """2^-22 is four units of float32; the stored gradient is another off."""
    g, _, limit = norms(clip, clipping("boundary", clip))
    assert np.abs(g / limit - 1.0).max() <= 6 * 2.0**-24


def test_tiny_parameters_are_smaller_than_eps():
    _, p, _ = norms(KERNEL, clipping("tiny"))
    eps = KERNEL.rule.eps
    assert (p < eps).mean() > 0.5
    assert (p > 0.0).all()


@pytest.mark.parametrize("regime", ["some", "boundary", "large"])
@pytest.mark.parametrize("clip", CLIPS, ids=range(len(CLIPS)))
def test_other_parameters_are_larger_than_eps(clip, regime):
    _, p, _ = norms(clip, clipping(regime, clip))
    assert (p > clip.rule.eps).all()


def test_gradients_are_larger_than_what_guards_the_division():
    g, _, _ = norms(KERNEL, clipping("some"))
    assert (g > LEAST_GRADIENT_NORM).all()


def test_units_of_zeros():
    g, p, _ = norms(KERNEL, clipping("zero"))
    for zero in (p == 0.0, g == 0.0):
        assert 1 <= zero.sum() <= 31
    assert ((p == 0.0) & (g > 0.0)).any()


@pytest.mark.parametrize("mode", ["bf16", "f16"])
def test_narrow_gradients_are_stored_as_such(mode):
    arrays = clipping("some", mode=mode)
    np.testing.assert_array_equal(narrow(arrays["gradient"], mode), arrays["gradient"])
    assert (narrow(arrays["parameter"], mode) != arrays["parameter"]).any()


@pytest.mark.parametrize("mode", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("op", [op for op in target(None).ops if isinstance(op, Activation)])
def test_activations_are_drawn_up_to_the_largest_number(mode, op):
    case = Case("ACT-01", 0, RANGE, mode, op=op, shape=(4, 8, 8, 8))
    x = regimes.whole_range(case, 2.0, slopes=False)
    y = operations.activation(op, x)
    largest = LARGEST[mode]
    factor = 2.0 * max(1.0, abs(op.gamma), abs(op.beta), abs(op.gamma * op.beta))
    assert (largest / factor * 0.9 < np.abs(x).max()) and (np.abs(x).max() < largest / factor)
    assert (np.abs(y) < largest).all()
    binades = set(zip(np.floor(np.log2(np.abs(x))).flat, np.sign(x).flat, strict=True))
    assert len(binades) >= 1.6 * (np.log2(largest / factor) + 9.0)  # nearly all, of both signs
    assert np.isfinite(narrow(x, mode)).all()


@pytest.mark.parametrize("mode", ["f32", "bf16", "f16"])
def test_slopes_of_tanh_gelu_are_drawn_where_its_cube_does_not_overflow(mode):
    """PyTorch's own slope is no number beyond: whoever uses it is not accused."""
    activations = [op for op in target(None).ops if isinstance(op, Activation)]
    op = next(op for op in activations if op.kind == "gelu_tanh")
    case = Case("ACT-02", 0, RANGE, mode, op=op, shape=(4, 8, 8, 8))
    x = np.abs(regimes.whole_range(case, 2.0, slopes=True))
    assert 0.05 * LARGEST[mode] < x.max() ** 3 < LARGEST[mode]
