"""Arithmetic on values with bounds: errors as large as those of the operands stay within."""

import numpy as np
import pytest

from nfspec.conformance.bounds.bounded import (
    Bounded,
    mean_over_image,
    product,
    scaled,
    together,
)
from nfspec.conformance.cases.precision import MODES, Precision, truncated

from .float32 import ratio

RNG = np.random.default_rng(0)
TINY = 1e-7  # of the errors, so that their products do not count
EXACT = Precision(0.0, 0.0, 0.0, 0.0, "float32")  # no rounding of its own


def drawn(*shape, label="a", rng=RNG):
    value = rng.standard_normal(shape)
    return Bounded(value, {label: TINY * rng.uniform(0.5, 1.5, shape)})


def off(x, rng=RNG):
    """A computed value, off by as much as the bound allows, on either side."""
    return x.value + rng.choice([-1.0, 1.0], x.value.shape) * sum(x.terms.values())


# First-order bounds: what errors of errors add.
SLACK = 1.0 + 1e-5


def test_terms_of_the_same_label_add():
    terms = together({"a": np.array(1.0), "b": np.array(2.0)}, {"a": np.array(3.0)})
    assert {label: float(term) for label, term in terms.items()} == {"a": 4.0, "b": 2.0}


def test_terms_scaled():
    assert scaled({"a": np.array(3.0)}, lambda term: 2.0 * term) == {"a": 6.0}


OPERATIONS = {
    "plus": (lambda a, b: a.plus(b), lambda a, b: a + b),
    "times": (lambda a, b: a.times(b), lambda a, b: a * b),
    "by": (lambda a, b: a.by(-3.0), lambda a, b: -3.0 * a),
    "broadcast": (lambda a, b: a.times(b.map(lambda v: v[:1])), lambda a, b: a * b[:1]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_pass_on(name):
    """Elementwise and sure: the worst signs reach the bound and do not exceed it."""
    bounded, plain = OPERATIONS[name]
    worst = 0.0
    for _ in range(20):
        a, b = drawn(5, 7), drawn(5, 7, label="b")
        both = bounded(a, b)
        np.testing.assert_array_equal(both.value, plain(a.value, b.value))
        worst = max(worst, ratio(plain(off(a), off(b)), both.value, both.terms))
    assert 0.9 <= worst <= SLACK


def test_rounding_is_a_term_of_its_own():
    x = drawn(50)
    stored = x.rounded("store", 2.0**-8, times=2.0, least=1e-3)
    np.testing.assert_array_equal(stored.terms["a"], x.terms["a"])
    np.testing.assert_allclose(stored.terms["store"], 2.0**-7 * np.abs(x.value) + 1e-3)
    once = Bounded(x.value).rounded("store", 2.0**-8)
    assert 0.5 <= ratio(truncated(x.value, 7), x.value, once.terms) <= 1.0


def test_errors_pass_through_a_function():
    x = drawn(50)
    sine = x.function(np.sin(x.value), np.cos(x.value), "sin", np.zeros(50))
    assert 0.99 <= ratio(np.sin(off(x)), sine.value, sine.terms) <= SLACK


def test_moving_elements_moves_their_terms():
    x = drawn(2, 3)
    moved = x.map(np.transpose)
    assert moved.value.shape == moved.terms["a"].shape == (3, 2)
    np.testing.assert_array_equal(moved.terms["a"], x.terms["a"].T)
    assert x.over_image().terms["a"].shape == (2, 1, 1, 3)


def test_errors_pass_through_a_matrix_product():
    """Independent ones: their root of a sum of squares, 8 deviations of which are in a bound."""
    a, b = drawn(30, 40), drawn(40, 20, label="b")
    matrix = product(a, b, "sum", EXACT)
    np.testing.assert_array_equal(matrix.value, a.value @ b.value)
    for one, other in ((off(a), b.value), (a.value, off(b))):
        label = "b" if other is not b.value else "a"
        worst = ratio(one @ other, matrix.value, {label: matrix.terms[label]})
        assert 2.0 <= worst <= 8.0
    assert not matrix.terms["sum"].any()


def test_errors_pass_through_a_mean():
    x = drawn(4, 6, 6, 50)
    mean = mean_over_image(x, "mean", EXACT)
    np.testing.assert_allclose(mean.value, x.value.mean(axis=(1, 2)), rtol=1e-12)
    assert 2.0 <= ratio(off(x).mean(axis=(1, 2)), mean.value, {"a": mean.terms["a"]}) <= 8.0


@pytest.mark.parametrize("mode", MODES)
def test_products_and_means_round_as_the_mode_says(mode):
    """The bound's own term, where operands come exact."""
    precision = MODES[mode]
    a, b = Bounded(RNG.standard_normal((4, 64))), Bounded(RNG.standard_normal((64, 4)))
    own = product(a, b, "sum", precision).terms["sum"]
    size = np.sqrt((a.value**2) @ (b.value**2))
    assert (own >= 8.0 * np.sqrt(2.0) * precision.operand * size).all()
    assert (own <= 12.0 * (precision.operand + 8 * precision.accumulate) * size
            + precision.store * np.abs(a.value @ b.value) + precision.least
            + 8 * precision.accumulate * 5 * np.abs(a.value @ b.value)).all()  # fmt: skip
