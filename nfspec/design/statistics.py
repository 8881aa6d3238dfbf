"""Sums over the outputs of a plan's operations, and what a fresh conv should make of its input.

A sum is taken over batch, height and width, so that images can be taken a few at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nfspec.plan import ECA, Operation, Plan, Pool, SqueezeExcite, WSConv
from nfspec.reference.operations import conv

Array = NDArray[np.float64]
CHANCE = 1e-6  # that chance alone takes any of a network's ratios out of its bound


@dataclass(frozen=True)
class Ratio:
    """A measured number over what is expected of it at initialisation.

    Attributes:
        op: Name of the operation.
        value: The ratio; 1 is expected.
        bound: Distance from 1 that chance explains.
    """

    op: str
    value: float
    bound: float

    @property
    def good(self) -> bool:
        return abs(self.value - 1.0) <= self.bound


class Sums:
    """Sums over one operation's output; see `Statistics`."""

    def __init__(self, channels: int):
        self.elements = 0  # of each channel
        self.total = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.expected = np.zeros(channels)  # of `squares`, from the input of a fresh conv
        self.gates, self.images = np.zeros(channels), 0
        self.before = self.after = 0.0  # variance across channels that a pool reads and leaves

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.squares).all())

    @property
    def power(self) -> float:
        """Mean square."""
        return float(np.mean(self.squares)) / self.elements

    @property
    def sq_mean(self) -> float:
        """Mean over channels of the squared channel mean."""
        return float(np.mean((self.total / self.elements) ** 2))

    @property
    def variance(self) -> float:
        """Mean over channels of the channel variance."""
        return float(np.maximum(0.0, self.power - self.sq_mean))  # NaN stays


class Statistics:
    """The sums of every operation with height and width, by name."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.of: dict[str, Sums] = {}

    def add(self, op: Operation, x: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """Take the output of an operation on some images, and the first of its inputs."""
        if out.ndim != 4:
            return
        sums = self.of.setdefault(op.name, Sums(out.shape[3]))
        out = np.asarray(out, np.float64)
        sums.elements += out[..., 0].size
        sums.total += out.sum(axis=(0, 1, 2))
        sums.squares += np.einsum("nhwc,nhwc->c", out, out)
        wide = np.asarray(x, np.float64)
        if isinstance(op, WSConv):
            sums.expected += _fresh_power(op, wide)
        elif isinstance(op, SqueezeExcite | ECA):
            size = np.einsum("nhwc,nhwc->nc", wide, wide)
            gate = np.einsum("nhwc,nhwc->nc", wide, out)
            sums.gates += (gate / np.where(size > 0, size, 1.0)).sum(axis=0)
            sums.images += len(x)
        elif isinstance(op, Pool) and op.kind == "avg":
            sums.before += len(x) * float(np.var(wide, axis=3).mean())
            sums.after += len(x) * float(np.var(out, axis=3).mean())

    def convs(self) -> tuple[Ratio, ...]:
        """The mean square of each fresh conv's output, over what is expected from its input.

        Given the input, the kernels of the output channels are independent draws, so that the
        spread between channels says how far their mean may be from what is expected.
        """
        ops = [op for op in self.plan.ops if isinstance(op, WSConv) and op.gain_init != 0.0]
        ops = [op for op in ops if op.name in self.of and self.of[op.name].expected.any()]
        found = []
        for op in ops:
            sums = self.of[op.name]
            expected = sums.expected * (op.gain_init**2 if op.gain_init else 1.0)
            found.append(_ratio(op.name, sums.squares, expected, len(ops)))
        return tuple(found)

    def gates(self) -> tuple[Ratio, ...]:
        """The mean gate of each channel attention, gain included, which is 1 at initialisation.

        The last dense kernel is symmetric about 0, and so is the sigmoid about 1/2.
        """
        all_gates = {name: sums for name, sums in self.of.items() if sums.images}
        return tuple(
            _ratio(name, sums.gates, np.full_like(sums.gates, sums.images), len(all_gates))
            for name, sums in all_gates.items()
        )

    def pools(self) -> dict[str, float]:
        """The share of the variance across channels that each average pool leaves."""
        return {name: each.after / each.before for name, each in self.of.items() if each.before}


def _ratio(name: str, found: Array, expected: Array, tests: int) -> Ratio:
    """Sum of `found` over that of `expected`, whose entries are independent between channels."""
    n, value = len(found), float(found.sum() / expected.sum())
    if n < 2:
        return Ratio(name, value, math.inf)
    spread = math.sqrt(float(((found - value * expected) ** 2).sum()) * n / (n - 1))
    return Ratio(name, value, quantile(n - 1, CHANCE / (2 * tests)) * spread / expected.sum())


@cache
def quantile(freedom: int, chance: float) -> float:
    """The number that Student's t exceeds by a chance.

    With t = sqrt(freedom) / tan(v), the upper tail is the integral of sin(v) ** (freedom - 1) from
    0 to v, over that from 0 to pi.

    Args:
        freedom: Degrees of freedom. From a thousand on the number is that of a thousand, which is
            larger by less than 1 %.
        chance: Chance of the upper tail, below a half.
    """
    power = min(freedom, 1000) - 1
    nodes, weights = np.polynomial.legendre.leggauss(400)

    def area(angle: float) -> float:
        values = np.sin(0.5 * angle * (nodes + 1.0)) ** power
        return 0.5 * angle * float(np.sum(weights * values))

    whole, low, high = 2.0 * area(math.pi / 2), 0.0, math.pi / 2
    for _ in range(100):  # bisection, to the last bit
        middle = 0.5 * (low + high)
        low, high = (middle, high) if area(middle) < chance * whole else (low, middle)
    return math.sqrt(power + 1) / math.tan(high)


def _fresh_power(op: WSConv, x: Array) -> Array:
    """The sum of squares that each output channel of a fresh conv is expected to have, over N,
    height and width; (O,).

    The n weights of an output channel sum to 0, and their squares to gamma**2. Drawn from a normal
    distribution they have no direction of their own, so that the square of a weighted sum of the
    inputs a is expected to be (sum(a**2) - sum(a)**2 / n) / (n - 1), times gamma**2. Under the
    rule `none` they are independent, and that is sum(a**2) times gamma**2 and their variance.
    Inputs beyond the border are zeros.
    """
    n, groups = op.fan_in, op.groups
    shape = (*x.shape[:3], groups, op.in_channels // groups)
    each = x.reshape(shape)
    box = np.ones((op.kernel, op.kernel, 1, groups))
    sums, squares = (
        conv(part, box, *op.sliding)
        for part in (each.sum(axis=4), np.einsum("nhwgc,nhwgc->nhwg", each, each))
    )
    if op.eps_rule != "none":
        squares = (squares - sums**2 / n) / (n - 1)
    power = squares.sum(axis=(0, 1, 2)) / (n if op.eps_rule == "none" else 1)
    return np.repeat(op.gamma**2 * kept_by_eps(op) * power, op.out_channels // groups)


def kept_by_eps(op: WSConv) -> float:
    """The share of a conv's variance that eps and ddof of weight standardisation leave, at the
    initial variance of its kernel; under the rule `none`, that variance times the fan-in."""
    n, variance = op.fan_in, op.kernel_init.value**2
    match op.eps_rule:
        case "none":
            return n * variance
        case "max":
            kept = n * variance / max(n * variance, op.eps)
        case "add":
            kept = variance / (variance + op.eps)
        case _:
            kept = variance / (math.sqrt(variance) + op.eps) ** 2
    return kept * (n - op.ddof) / n
