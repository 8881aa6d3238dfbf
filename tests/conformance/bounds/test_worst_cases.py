"""Bounds where rounding errors are as large as they can be: each term is needed."""

import math

import numpy as np
import pytest

from nfspec import plan as p
from nfspec.conformance.bounds import clipping, layers
from nfspec.conformance.bounds.sums import LAMBDA
from nfspec.conformance.cases.case import Case, Clip
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.regimes import clipping as drawn
from nfspec.conformance.properties.base import wide
from nfspec.reference import training

from .float32 import ratio

FULL = MODES["f32"]


def test_the_probability_of_a_false_alarm():
    """By Azuma's inequality, for each element: see `nfspec.conformance.bounds`."""
    assert 2.0 * math.exp(-(LAMBDA**2) / 2.0) == pytest.approx(2.5e-14, rel=0.02, abs=0.0)


def test_an_average_whose_every_sum_is_rounded_up():
    """1 and eight numbers just over half of its last place: each addition errs by that half."""
    half = np.float32(2.0**-24 * 1.001)
    x = np.full((1, 3, 3, 1), half, np.float32)
    x[0, 0, 0, 0] = 1.0
    total = np.float32(0.0)
    for value in x.flat:
        total += value
    exact, terms = layers.pool(p.Pool("op", ("x",), "avg", 3, 3, "same"), np.float64(x), FULL)
    assert exact.shape == (1, 1, 1, 1)
    assert 0.5 < ratio(np.full(exact.shape, total / np.float32(9.0)), exact, terms) <= 1.0


@pytest.mark.parametrize("shape", [(3, 3, 16, 8), (1, 1, 512, 16)])
def test_norms_that_are_off_by_all_that_they_may_be(shape):
    """The gradient's norm too small and the parameter's too large: both errors count in full."""
    clip = Clip("kernel", shape, "squeeze", 0.01, 1e-3)
    a = wide(drawn(Case("AGC-01", regime="large", op=clip)))
    rule = clip.rule
    exact, terms, clipped = clipping.clip(a["gradient"], a["parameter"], rule, FULL)
    u = FULL.accumulate
    off_gradient, off_parameter = (
        clipping._norm(a[name], rule.axes, u)[1] for name in ("gradient", "parameter")
    )
    wrong = np.where(clipped, exact * (1.0 + off_gradient + off_parameter), exact)
    assert clipped.all()
    np.testing.assert_array_equal(exact, training.clip(a["gradient"], a["parameter"], rule)[0])
    assert 0.9 < ratio(wrong, exact, terms) <= 1.0
