"""Monte-Carlo arithmetic: how far honest float32 rounding may move a network's outputs.

Every operation of a float64 run gets noise of the size that rounding has in sequential float32
arithmetic, the least favourable order that a kernel uses; the distance to the exact run is then a
sample of the distance that a correct implementation may have (Parker 1997, Monte Carlo Arithmetic).

A sum of n uncorrelated terms t has partial sums that grow as a random walk, so its error has a
standard deviation of u·sqrt(n/6)·sqrt(Σt²); of n equal terms, u·sqrt(n)/3 of the mean.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

UNIT_ROUNDOFF = 2.0**-24  # float32, round to nearest

Array = NDArray[np.float64]


class Rounding:
    """Noise for one perturbed run, drawn from a seed."""

    def __init__(self, seed: int, unit: float = UNIT_ROUNDOFF):
        self.rng = np.random.default_rng(seed)
        self.unit = unit

    def _noise(self, shape: tuple[int, ...]) -> Array:
        return self.unit * self.rng.standard_normal(shape)

    def output(self, out: Array) -> Array:
        """The rounding of a result as it is stored."""
        return out * (1.0 + self._noise(out.shape))

    def kernel(self, kernel: Array) -> Array:
        """Of a standardised kernel: each weight on its own, and each channel's scale."""
        scale = 2.0 * self._noise(kernel.shape[3:])
        return kernel * (1.0 + self._noise(kernel.shape) + scale)

    def conv(self, out: Array, x: Array, kernel: Array, groups: int) -> Array:
        """Of a conv's accumulation: Σt² is the mean square input by the kernel's squares."""
        squares = (x.reshape(-1, groups, kernel.shape[2]) ** 2).mean(axis=(0, 2))
        per_channel = np.repeat(squares, kernel.shape[3] // groups) * (kernel**2).sum(
            axis=(0, 1, 2)
        )
        n = kernel[..., 0].size
        return out + np.sqrt(per_channel) * math.sqrt(n / 6.0) * self._noise(out.shape)

    def dense(self, out: Array, x: Array, kernel: Array) -> Array:
        """Of a matrix product's accumulation, (N, I) by (I, O)."""
        squares = np.sqrt((x**2) @ (kernel**2))
        return out + squares * math.sqrt(len(kernel) / 6.0) * self._noise(out.shape)

    def mean(self, out: Array, n: int) -> Array:
        """Of a mean over n pixels."""
        return out * (1.0 + math.sqrt(n) / 3.0 * self._noise(out.shape))
