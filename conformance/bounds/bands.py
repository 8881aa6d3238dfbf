"""Bands for whole blocks, networks and training runs, where element-wise bounds grow past use.

The reference runs several times with every operation perturbed as rounding would
(`nfspec.reference.rounding`); sigma is the root mean square of those runs' distances from the exact
one, and a correct implementation stays within SIGMAS of it (Parker 1997, Monte Carlo Arithmetic).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.precision import Precision
from nfspec.reference.rounding import Rounding

Array = NDArray[np.float64]

SIGMAS = 8.0


def rounding(seed: int, precision: Precision) -> Rounding:
    """The noise of one run in a mode."""
    return Rounding(seed, precision.accumulate, precision.store, precision.operand)


def bands(
    run: Callable[[Rounding], Mapping[str, Array]],
    exact: Mapping[str, Array],
    precision: Precision,
    samples: int,
    *,
    elementwise: frozenset[str] = frozenset(),
) -> dict[str, Array]:
    """SIGMAS times sigma of each output: of its rms, or of each element.

    Args:
        run: The reference, perturbed.
        exact: Its outputs without perturbation.
        precision: Precision of the mode.
        samples: Number of runs.
        elementwise: Outputs whose elements have a band each.
    """
    squares = {name: np.zeros(()) for name in exact}
    for seed in range(samples):
        for name, value in run(rounding(seed, precision)).items():
            gap = (value - exact[name]) ** 2
            squares[name] = squares[name] + (gap if name in elementwise else gap.mean())
    return {
        name: SIGMAS * np.sqrt(square / samples) + precision.least
        for name, square in squares.items()
    }
