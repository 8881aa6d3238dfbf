"""The arithmetic of the resolver: how widths, gammas and kernel sizes become numbers."""

from __future__ import annotations

import math

from nfspec.plan.activations import DEEPMIND_GAMMA, exact_gamma


def nearest_multiple(value: float, divisor: int, least: float) -> int:
    """The multiple of `divisor` nearest to `value`, one more where that is below `least` of it.

    Halves go up, and the result is never less than `divisor` (timm/layers/helpers.py).
    """
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < least * value else nearest


def rounded(value: float, rounding: str, divisor: int, least: float) -> int:
    """A width by a spec's rule: `nearest` as above, or `floor` to a multiple of `divisor`."""
    if rounding == "nearest":
        return nearest_multiple(value, divisor, least)
    return int(value) // divisor * divisor


def gamma_of(value: float | str, kind: str, slope: float) -> float:
    """The number behind a spec's gamma: itself, the original's digits, or the integral."""
    if value == "deepmind":
        return DEEPMIND_GAMMA[kind]
    return exact_gamma(kind, slope) if value == "exact" else float(value)


def eca_taps(channels: int) -> int:
    """Wang et al. 2020 (arXiv:1910.03151) §3.2; from even to odd as timm/layers/eca.py does it."""
    half = int(abs(math.log2(channels) + 1) / 2)
    return max(half if half % 2 else half + 1, 3)
