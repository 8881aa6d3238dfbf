"""Bounds of sums: the closed form, and float32 sums that stay within them and come near."""

from itertools import permutations

import numpy as np
import pytest

from nfspec.conformance.bounds.sums import LAMBDA, entering, partial_sums, summing
from nfspec.conformance.cases.precision import truncated

ROWS = 2000
# How near the bound, LAMBDA times a deviation of the whole unit, the worst of those rows has to
# come. Rounding to nearest has a deviation of 1/sqrt(12) of the unit where a binade ends, and the
# worst of 2000 draws is over 3 deviations off; half of that is asked for.
NEAR = 3.0 / 12.0**0.5 / LAMBDA / 2.0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_the_mean_over_all_orders(n):
    terms = np.random.default_rng(n).standard_normal(n)
    sums = [(np.cumsum(order) ** 2).sum() for order in permutations(terms)]
    exact = partial_sums(n, terms.sum(), (terms**2).sum())
    assert exact == pytest.approx(np.mean(sums), rel=1e-13)


def narrow(x, bits):
    """float32 at fewer bits of fraction."""
    return x if bits == 23 else truncated(x, bits)


def products(n, mean, seed, bits=23):
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((2, n, ROWS)) + mean
    return narrow(drawn.astype(np.float32), bits)


@pytest.mark.parametrize("bits", [23, 10, 7])
@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("n", [1, 4, 36, 256])
def test_sequential_sums_stay_within_and_come_near(n, mean, bits):
    a, b = products(n, mean, 10 * n + bits, bits)
    total = np.zeros(ROWS, np.float32)
    for i in range(n):
        total = narrow(total + narrow(a[i] * b[i], bits), bits)
    terms = a.astype(np.float64) * b
    bound = summing(n, terms.sum(axis=0), (terms**2).sum(axis=0), 2.0 ** -(bits + 1))
    ratios = np.abs(total - terms.sum(axis=0)) / bound
    assert NEAR <= ratios.max() <= 1.0


@pytest.mark.parametrize("n", [36, 1024])
def test_other_orders_stay_within(n):
    a, b = products(n, 0.0, n)
    terms = a.astype(np.float64) * b
    bound = summing(n, terms.sum(axis=0), (terms**2).sum(axis=0), 2.0**-24)
    backwards = np.add.accumulate((a * b)[::-1], axis=0)[-1]
    pairwise = a * b
    while len(pairwise) > 1:
        pairwise = np.concatenate([pairwise[0::2][: len(pairwise) // 2] + pairwise[1::2],
                                   pairwise[len(pairwise) // 2 * 2 :]])  # fmt: skip
    for total in (backwards, pairwise[0]):
        assert (np.abs(total - terms.sum(axis=0)) <= bound).all()


@pytest.mark.parametrize("bits", [10, 7])
@pytest.mark.parametrize("n", [1, 36, 256])
def test_operands_rounded_as_they_enter(n, bits):
    a, b = products(n, 0.0, n + bits)
    exact = a.astype(np.float64) * b
    entered = narrow(a, bits).astype(np.float64) * narrow(b, bits)
    bound = entering((exact**2).sum(axis=0), 2.0 ** -(bits + 1))
    ratios = np.abs((entered - exact).sum(axis=0)) / bound
    assert NEAR <= ratios.max() <= 1.0


def test_operands_that_enter_as_they_are():
    assert entering(np.ones(3), 0.0).tolist() == [0.0, 0.0, 0.0]


def test_a_sum_of_nothing_but_zeros_is_exact():
    assert summing(9, 0.0, 0.0, 2.0**-24) == 0.0
