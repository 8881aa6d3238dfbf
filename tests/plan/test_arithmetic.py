"""Rounding, gammas and ECA's taps; tests/plan/test_resolver.py has them in networks."""

import pytest

from nfspec.plan.activations import DEEPMIND_GAMMA, exact_gamma
from nfspec.plan.arithmetic import eca_taps, gamma_of, nearest_multiple, rounded


def test_nearest_multiples_go_up_at_half_and_never_below_a_tenth():
    pairs = {36: 40, 35.5: 32, 4: 8, 1: 8, 0: 8, 11.9: 16, 11: 16, 12: 16, 175.5: 176, 81: 80}
    assert {value: nearest_multiple(value, 8, 0.9) for value in pairs} == pairs
    assert nearest_multiple(11, 8, 0.0) == 8


def test_floors_go_down_to_a_multiple():
    assert [rounded(value, "floor", 1, 0.9) for value in (35.99, 36.0, 0.5)] == [35, 36, 0]
    assert [rounded(value, "floor", 8, 0.9) for value in (39.9, 40, 7)] == [32, 40, 0]
    assert rounded(35.5, "nearest", 8, 0.9) == nearest_multiple(35.5, 8, 0.9)


@pytest.mark.parametrize(
    ("channels", "taps"), [(1, 3), (16, 3), (64, 3), (128, 5), (256, 5), (1536, 5), (2048, 7)]
)
def test_eca_taps(channels, taps):
    assert eca_taps(channels) == taps


def test_gammas():
    assert gamma_of(1.25, "relu", 0.01) == 1.25
    assert gamma_of("deepmind", "relu", 0.01) == DEEPMIND_GAMMA["relu"]
    assert gamma_of("exact", "leaky_relu", 0.2) == exact_gamma("leaky_relu", 0.2)
