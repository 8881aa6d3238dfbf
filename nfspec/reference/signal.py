"""Signal propagation: the variance each block should see, and what it does see.

Brock et al. 2021 (arXiv:2101.08692 §2 and §3.1); the statistics are those of
deepmind-research/nfnets/base.py, `signal_metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec import reference
from nfspec.arguments import instance
from nfspec.plan import Plan
from nfspec.plan.initialise import Params


@dataclass(frozen=True)
class Signal:
    """Statistics of one activation, channels taken one by one over batch, height and width.

    Attributes:
        tap: `stem`, or a block's name.
        expected_variance: Variance that the plan expects at initialisation, if every skip gain
            is 1.
        avg_sq_mean: Mean over channels of the squared channel mean.
        avg_var: Mean over channels of the channel variance.
        res_avg_var: avg_var of the residual branch before stochastic depth and gains; None at the
            stem.
    """

    tap: str
    expected_variance: float
    avg_sq_mean: float
    avg_var: float
    res_avg_var: float | None


def expected_variance(plan: Plan) -> dict[str, float]:
    """Expected variance of the outputs of stem and blocks, for residuals of unit variance."""
    variances = {"stem": 1.0}
    instance("plan", plan, Plan, "nfspec.resolve")
    for block in plan.blocks:
        start = 1.0 if block.index == 0 else block.expected_variance
        variances[block.name] = start + block.alpha**2
    return variances


def _avg_var(x: NDArray[np.float64]) -> float:
    return float(np.mean(np.var(x, axis=(0, 1, 2))))


def measure(plan: Plan, params: Params, x: ArrayLike) -> tuple[Signal, ...]:
    """Run the reference and take the statistics after the stem and after each block.

    Args:
        plan: The network.
        params: Canonical name to array.
        x: Images, (N, H, W, channels).
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    residuals = {f"{block.name}.residual": block.residual for block in plan.blocks}
    taps = reference.forward(plan, params, x, taps={**plan.taps, **residuals})
    signals = []
    for tap, expected in expected_variance(plan).items():
        out, residual = taps[tap], taps.get(f"{tap}.residual")
        sq_mean = float(np.mean(np.mean(out, axis=(0, 1, 2)) ** 2))
        res_avg_var = None if residual is None else _avg_var(residual)
        signals.append(Signal(tap, expected, sq_mean, _avg_var(out), res_avg_var))
    return tuple(signals)
