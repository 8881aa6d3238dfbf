"""Bands of a whole network: as wide as the arithmetic is coarse, and far narrower than mistakes."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec import reference
from nfspec.conformance.bounds.bands import SIGMAS, bands, rounding
from nfspec.conformance.cases.precision import MODES, Precision
from nfspec.conformance.cases.weights import trial_params
from nfspec.plan import Residual

FULL = MODES["f32"]
PLAN = nfspec.resolve(nfspec.load("timm/test_nfnet"))
PARAMS = trial_params(PLAN, 0)
X = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)


def forward(noise=None, plan=PLAN):
    return reference.forward(plan, PARAMS, X, rounding=noise)


@pytest.fixture(scope="module")
def exact():
    return forward()


@pytest.fixture(scope="module")
def band(exact):
    return bands(forward, exact, FULL, 3)


def rms(array):
    return float(np.sqrt((array**2).mean()))


def test_they_are_as_wide_as_the_unit(exact, band):
    """To first order: what rounding does is of the size of its unit, and its square 2^-24 less."""
    u = FULL.store
    double = bands(forward, exact, Precision(0.0, 2 * u, 2 * u, FULL.least, "float32"), 3)
    for name, width in band.items():
        assert double[name] == pytest.approx(2.0 * width, rel=1e-4)


def test_narrow_operands_and_results_widen_them(exact, band):
    tf32, bf16 = (bands(forward, exact, MODES[mode], 2) for mode in ("tf32", "bf16"))
    for name, width in band.items():
        assert width < tf32[name] < bf16[name]


def test_another_run_is_within_a_few_sigma(exact, band):
    other = forward(rounding(99, FULL))
    for name, width in band.items():
        assert 0.2 <= rms(other[name] - exact[name]) / (width / SIGMAS) <= 3.0


def test_alpha_off_by_a_thousandth_is_far_outside(exact, band):
    wrong = replace(
        PLAN,
        ops=tuple(
            replace(op, alpha=1.001 * op.alpha) if isinstance(op, Residual) else op
            for op in PLAN.ops
        ),
    )
    outputs = forward(plan=wrong)
    ratios = {name: rms(outputs[name] - exact[name]) / width for name, width in band.items()}
    assert ratios.pop("stem") == 0.0
    assert min(ratios.values()) > 10.0, ratios


def test_one_number_for_an_output_or_one_for_each_element(exact):
    widths = bands(forward, exact, FULL, 2, elementwise=frozenset({"logits"}))
    assert widths["logits"].shape == exact["logits"].shape
    assert widths["pool"].shape == ()
    both = bands(forward, exact, FULL, 2)
    assert rms(widths["logits"]) == pytest.approx(both["logits"])


def test_sigma_is_the_rms_of_the_distances():
    """Runs off by 1 and by 7: a sigma of 5."""
    gaps = {rounding(seed, FULL).rng.random(): gap for seed, gap in ((0, 1.0), (1, 7.0))}
    exact = {"y": np.zeros(4)}
    widths = bands(lambda noise: {"y": exact["y"] + gaps[noise.rng.random()]}, exact, FULL, 2)
    assert widths["y"] == pytest.approx(SIGMAS * 5.0)


def test_the_same_bits_each_time(exact, band):
    assert bands(forward, exact, FULL, 3) == band
