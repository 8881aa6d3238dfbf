"""Monte-Carlo arithmetic: how far honest float32 rounding may move a network's outputs.

Every operation of a float64 run gets noise of the size that rounding has in sequential float32
arithmetic, the least favourable order that a kernel uses; the distance to the exact run is then a
sample of the distance that a correct implementation may have (Parker 1997, Monte Carlo Arithmetic).

A sum of n uncorrelated terms t has partial sums that grow as a random walk, so its error has a
standard deviation of u·sqrt(n/6)·sqrt(Σt²); of n equal terms, u·sqrt(n)/3 of the mean. The square
of the partial sums of any n terms is (n + 1)/6 · (2·(Σt)² + Σt²), a mean over all orders.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

UNIT_ROUNDOFF = 2.0**-24  # float32, round to nearest

Array = NDArray[np.float64]


def _squares(kernel: Array) -> Array:
    """The sum of the squares of each output channel's weights, (O,)."""
    return np.asarray(np.einsum("hwio,hwio->o", kernel, kernel))


class Rounding:
    """Noise for one perturbed run, drawn from a seed.

    Args:
        seed: Seed of the noise.
        unit: Unit roundoff of sums and of the statistics of weights.
        stored: Unit of results as they are stored; `unit` if not given.
        operands: Unit of the operands of convs and products as they enter.
    """

    def __init__(
        self,
        seed: int,
        unit: float = UNIT_ROUNDOFF,
        stored: float | None = None,
        operands: float = 0.0,
    ):
        self.rng = np.random.default_rng(seed)
        self.unit = unit
        self.stored = unit if stored is None else stored
        self.operands = operands

    def _noise(self, shape: tuple[int, ...]) -> Array:
        return self.unit * self.rng.standard_normal(shape)

    def output(self, out: Array) -> Array:
        """The rounding of a result as it is stored."""
        return out * (1.0 + self.stored * self.rng.standard_normal(out.shape))

    def kernel(self, standard: Array, kernel: Array, scale: Array, narrow: bool) -> Array:
        """Noise of standardising a kernel: of each channel's scale, and of its mean, whose error
        shifts all weights of the channel alike. It matters where weights are alike.

        Args:
            standard: The standardised kernel.
            kernel: The kernel as it was.
            scale: Number that each channel's centred weights are multiplied by, (O,).
            narrow: True if the statistics are in the precision of stored results.
        """
        unit, over, n = self.stored if narrow else self.unit, (0, 1, 2), kernel[..., 0].size
        mean, squares = kernel.mean(axis=over), _squares(kernel)
        summed = np.sqrt((n + 1) / 6.0 * (2.0 * (n * mean) ** 2 + squares) + squares) / n
        deviation = unit / math.sqrt(3.0)  # of a rounding that errs by `unit` at most
        shift = deviation * (summed + np.abs(mean)) * self.rng.standard_normal(mean.shape)
        noisy = standard * (1.0 + 2.0 * unit * self.rng.standard_normal(mean.shape))
        noisy += scale * shift
        return noisy

    def scores(self, scores: Array, shifted: Array) -> Array:
        """Noise of the logarithm of a softmax, which is `shifted` less another logarithm, and of
        its products and sums with targets; once for each image, as those have a sign in common."""
        size = np.abs(scores) + np.abs(shifted)
        own = self.rng.standard_normal(scores.shape) + self.rng.standard_normal((len(scores), 1))
        return scores + self.unit * size * own

    def gradient(self, gradient: Array, n: int) -> Array:
        """Noise of storing a gradient and of its accumulation over n terms, whose squares sum to
        about the mean square of the gradient's elements."""
        if not gradient.size:
            return gradient
        size = math.sqrt(float(np.vdot(gradient, gradient)) / gradient.size)
        noise = self.rng.standard_normal(gradient.shape)
        entered = self.operands * math.sqrt(2.0) * size
        summed = self.unit * math.sqrt(n / 6.0) * size
        noise *= math.hypot(entered, summed) + self.stored * np.abs(gradient)
        return gradient + noise

    def conv(
        self, out: Array, x: Array, kernel: Array, groups: int, rounded: Array | None = None
    ) -> Array:
        """Noise of a conv's accumulation and of each weight: Σt² is the mean square input by the
        kernel's squares.

        Args:
            out: The output.
            x: The input.
            kernel: The kernel that convolves.
            groups: Number of groups.
            rounded: The sum of squares of the errors of each channel's weights, (O,); of their
                own rounding alone if not given.
        """
        squares = (x.reshape(-1, groups, kernel.shape[2]) ** 2).mean(axis=(0, 2))
        of_input = np.repeat(squares, kernel.shape[3] // groups)
        of_kernel = _squares(kernel)
        n, own = kernel[..., 0].size, max(self.unit, self.operands)
        variance = of_kernel * (n / 6.0 * self.unit**2 + self.operands**2 + own**2)
        if rounded is not None:
            variance = variance + rounded
        return out + np.sqrt(of_input * variance) * self.rng.standard_normal(out.shape)

    def weights(self, kernel: Array, scale: Array, narrow: bool) -> Array:
        """The sum of squares of the errors of each channel's weights, (O,): scale·w - scale·mean,
        both rounded, as where the two are fused. The arguments are those of `kernel`."""
        unit = self.stored if narrow else self.unit
        size = np.abs(kernel)
        size += np.abs(kernel.mean(axis=(0, 1, 2)))
        return (unit * scale) ** 2 * _squares(size)

    def dense(self, out: Array, x: Array, kernel: Array) -> Array:
        """Noise of a matrix product's accumulation, (N, I) by (I, O)."""
        squares = np.sqrt((x**2) @ (kernel**2))
        size = math.hypot(math.sqrt(len(kernel) / 6.0) * self.unit, self.operands)
        return out + squares * size * self.rng.standard_normal(out.shape)

    def mean(self, out: Array, n: int) -> Array:
        """Noise of a mean over n pixels."""
        return out * (1.0 + math.sqrt(n) / 3.0 * self._noise(out.shape))
