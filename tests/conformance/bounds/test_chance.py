"""Chance: the bound is above the exact tails of the binomial, and falls with the count."""

import math

import pytest

from nfspec.conformance.bounds.chance import UNLIKELY, chance


def tails(count, probability, bound):
    """The probability that a frequency is further off than the bound, summed exactly."""
    log = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(probability) + (count - k) * math.log1p(-probability)
        for k in range(count + 1)
        if abs(k / count - probability) > bound
    ]  # fmt: skip
    return sum(map(math.exp, log))


@pytest.mark.parametrize("count", [20, 512, 4096])
@pytest.mark.parametrize("probability", [0.0025, 0.05, 0.25, 0.5, 0.9])
def test_chance_is_beyond_it_as_rarely_as_said(count, probability):
    assert tails(count, probability, chance(count, probability)) <= UNLIKELY


def test_it_is_not_wider_than_it_has_to_be():
    """Within a half of the normal approximation's, where many are drawn."""
    deviations = chance(2**18, 0.25) / math.sqrt(0.25 * 0.75 / 2**18)
    assert 8.2 < deviations < 1.5 * 8.2  # 8.2 sigma is a tail of 1e-16


def test_what_is_certain_has_no_chance():
    assert chance(100, 0.0) == chance(100, 1.0) == 0.0
