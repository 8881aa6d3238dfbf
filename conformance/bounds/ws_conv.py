"""Bounds of a conv with weight standardisation, and of its gradients.

For a channel with N weights w, mean m, d = w - m, S = Σd² and divisor D, the kernel is ŵ = a·d with
a = gamma·gain/D. The mean's error is the same for all of a channel's weights (a shift), and so is
that of a (a scale): both are carried as what they do to the sum, not weight by weight. The error of
m enters S in second order only, if the variance is of centred weights; that of a one-pass variance,
E[w²] - m², would not, and is not allowed for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.bounds.sums import LAMBDA, entering, summing
from nfspec.conformance.cases.precision import Precision
from nfspec.plan import WSConv
from nfspec.reference import derivatives
from nfspec.reference import operations as ops

Array = NDArray[np.float64]
Terms = dict[str, Array]

OVER = (0, 1, 2)  # the axes of a channel's weights
RSQRT = 4  # units that a reciprocal square root may be off by
SAFE = 1e-300  # keeps 0/0 of constant kernels finite; what it divides is 0


@dataclass(frozen=True)
class Standard:
    """A standardised kernel, and how far rounding may move it. All fields but `kernel`, `centred`
    and `spread` are per output channel.

    Attributes:
        kernel: ŵ.
        centred: d.
        scale, divisor: a and D.
        sensitivity: -2·dln(a)/dln(S): 1 where eps does not matter, 0 where only eps does.
        shift: Bound of the mean's error.
        relative: Relative bound of the error of a.
        of_squares: Relative bound of the error of S.
        spread: |w| + |m|, whose rounding enters a fused w·a - m·a.
        active: True where eps decides the divisor (rule `max`) or moves it by over 10 %.
    """

    kernel: Array
    centred: Array
    scale: Array
    divisor: Array
    sensitivity: Array
    shift: Array
    relative: Array
    of_squares: Array
    spread: Array
    active: NDArray[np.bool_]


def standard(op: WSConv, kernel: Array, gain: Array, precision: Precision) -> Standard:
    """Standardise a kernel (k, k, I/groups, O) exactly, and bound what rounding does to it."""
    n = op.fan_in
    u = _unit(op, precision)
    if op.eps_rule == "none":
        return _plain(op, kernel, gain, u)
    mean = kernel.mean(axis=OVER)
    centred = kernel - mean
    squares, fourths = (centred**2).sum(axis=OVER), (centred**4).sum(axis=OVER)
    variance = squares / (n - op.ddof)
    if op.eps_rule == "max":
        divisor = np.sqrt(np.maximum(n * variance, op.eps))
        sensitivity = np.minimum(1.0, n * variance / divisor**2)
    elif op.eps_rule == "add":
        divisor = np.sqrt(n * (variance + op.eps))
        sensitivity = variance / (variance + op.eps)
    else:
        divisor = np.sqrt(n) * (np.sqrt(variance) + op.eps)
        sensitivity = np.sqrt(variance) / (np.sqrt(variance) + op.eps)
    shift = summing(n, n * mean, (kernel**2).sum(axis=OVER), u) / n + u * np.abs(mean)
    of_squares = summing(n, squares, fourths, u) + 3.0 * LAMBDA * u * np.sqrt(fourths)
    if u > precision.accumulate:  # each weight is rounded as it enters
        entered = kernel**2 * u**2
        of_squares += 2.0 * LAMBDA * np.sqrt((centred**2 * entered).sum(axis=OVER))
        of_squares += entered.sum(axis=OVER) + n * precision.least
    of_squares = of_squares / (squares + SAFE) + n * shift**2 / (squares + SAFE) + 2.0 * u
    scale = op.gamma * gain / divisor
    return Standard(
        kernel=scale * centred,
        centred=centred,
        scale=scale,
        divisor=divisor,
        sensitivity=sensitivity,
        shift=shift,
        relative=0.5 * of_squares * sensitivity + (RSQRT + 4.0) * u,
        of_squares=of_squares,
        spread=np.abs(kernel) + np.abs(mean),
        active=sensitivity < (1.0 if op.eps_rule == "max" else 0.9),
    )


def _plain(op: WSConv, kernel: Array, gain: Array, u: float) -> Standard:
    """A kernel that is not standardised: gamma·gain·w, of two products."""
    none = np.zeros(op.out_channels)
    return Standard(
        kernel=op.gamma * gain * kernel,
        centred=kernel,
        scale=op.gamma * gain,
        divisor=none + 1.0,
        sensitivity=none,
        shift=none,
        relative=none + 2.0 * u,
        of_squares=none,
        spread=np.abs(kernel),
        active=none > 0.0,
    )


def _unit(op: WSConv, precision: Precision) -> float:
    """The unit of the standardisation: the statistics, and the kernel less its mean."""
    return precision.store if op.dtype == "compute" else precision.accumulate


def forward(
    op: WSConv, x: Array, kernel: Array, gain: Array, bias: Array, precision: Precision
) -> tuple[Array, Terms, Standard]:
    """Exact output, the terms of its bound, and the standardised kernel.

    Args:
        op: The conv.
        x: (N, H, W, I), as the subject was given it.
        kernel, gain, bias: (k, k, I/groups, O), (O,), (O,).
        precision: Precision of the mode.
    """
    u = precision.accumulate
    s = standard(op, kernel, gain, precision)
    y = ops.conv(x, s.kernel, *op.sliding)
    squares = ops.conv(x**2, s.kernel**2, *op.sliding)
    rounded = ops.conv(x**2, 2.0 * (s.scale * s.spread) ** 2 + s.kernel**2, *op.sliding)
    ones, width = np.ones((*kernel.shape[:3], op.groups)), op.out_channels // op.groups
    seen = np.repeat(np.abs(ops.conv(x, ones, *op.sliding)), width, axis=3)
    reach = np.repeat(np.sqrt(ops.conv(x**2, ones, *op.sliding)), width, axis=3)
    stored = precision.store * (2.0 * np.abs(y) + 2.0 * np.abs(bias))
    terms = {
        "shift": np.abs(s.scale) * s.shift * seen,
        "scale": s.relative * np.abs(y),
        "kernel": LAMBDA * _unit(op, precision) * np.sqrt(rounded),
        "sum": summing(op.fan_in, y, squares, u),
        # The output, and each weight as it enters, may be too near zero for the format.
        "store": stored + precision.least * (2.0 + LAMBDA * reach),
    }
    if precision.operand:
        terms["operands"] = entering(squares, precision.operand)
    return y + bias, terms, s


def _input_gradient(
    op: WSConv, dy: Array, s: Standard, dx: Array, squares: Array, precision: Precision
) -> Terms:
    """Terms of dx, a sum of dy·ŵ over output channels and taps; `squares` is the sum of (dy·ŵ)²."""
    u = precision.accumulate
    n, shape = op.kernel**2 * op.out_channels // op.groups, dx.shape

    def back(weights: Array) -> Array:
        return derivatives.conv_images(dy**2, shape, weights, *op.sliding)

    # An error that all of a channel's weights share does not average out over an input's taps.
    common = (s.relative * s.kernel) ** 2 + (s.scale * s.shift) ** 2
    rounded = 2.0 * (s.scale * s.spread) ** 2 + s.kernel**2
    terms = {
        "shift and scale": op.kernel * np.sqrt(back(common + np.zeros_like(s.kernel))),
        "kernel": LAMBDA * u * np.sqrt(back(rounded)),
        "sum": summing(n, dx, squares, u),
        "store": 2.0 * precision.store * np.abs(dx) + n * precision.least,
    }
    if precision.operand:
        terms["operands"] = entering(squares, precision.operand)
    return terms


def gradients(
    op: WSConv, dy: Array, x: Array, kernel: Array, gain: Array, precision: Precision
) -> tuple[dict[str, tuple[Array, Terms]], Standard]:
    """Exact gradients of Σ dy·y by images, kernel, gain and bias, with the terms of their bounds.

    Not for channels where n·variance is within a thousandth of eps under the rule `max`: there the
    gradient is discontinuous.
    """
    u, n = precision.accumulate, op.fan_in
    s = standard(op, kernel, gain, precision)
    dx, g = derivatives.conv(dy, x, s.kernel, *op.sliding)
    of_dx, squares = derivatives.conv(dy**2, x**2, s.kernel**2, *op.sliding)
    pixels = dy[..., 0].size
    of_g = summing(pixels, g, squares, u) + entering(squares, precision.operand)
    of_g = of_g + 2.0 * u * np.abs(g)

    dkernel, dgain = derivatives.standardise(op, g, kernel, gain)
    total, along = g.sum(axis=OVER), (g * s.centred).sum(axis=OVER)
    of_mean = np.sqrt((of_g**2).sum(axis=OVER)) / n
    of_mean = of_mean + summing(n, total, (g**2).sum(axis=OVER), u) / n
    if op.eps_rule == "none":  # no mean is taken off
        total, of_mean = np.zeros_like(total), np.zeros_like(of_mean)
    of_along = np.sqrt((s.centred**2 * of_g**2).sum(axis=OVER)) + s.shift * np.abs(total)
    of_along += summing(n, along, ((g * s.spread) ** 2).sum(axis=OVER), u)

    sum_of_squares = (s.centred**2).sum(axis=OVER) + SAFE
    pull = s.scale * s.sensitivity * along / sum_of_squares  # times d: the gradient by the divisor
    size = np.abs(s.scale)
    ones = np.ones_like(kernel)
    terms = {
        "sum": size * of_g,
        "mean": size * of_mean * ones,
        "scale": s.relative * np.abs(dkernel) + s.of_squares * np.abs(pull * s.centred),
        "along": size * s.sensitivity * np.abs(s.centred) * of_along / sum_of_squares,
        "centre": np.abs(pull) * (s.shift + 2.0 * u * s.spread),
        "store": 8.0 * u * (size * (np.abs(g) + np.abs(total) / n) + np.abs(pull * s.centred)),
    }
    of_gain = {
        "along": np.abs(op.gamma / s.divisor) * of_along,
        "scale": (s.relative + 4.0 * u) * np.abs(dgain),
    }
    dbias = dy.sum(axis=OVER)
    of_bias = {"sum": summing(pixels, dbias, (dy**2).sum(axis=OVER), u) + 2.0 * u * np.abs(dbias)}
    by_argument = {
        "x": (dx, _input_gradient(op, dy, s, dx, of_dx, precision)),
        "kernel": (dkernel, terms),
        "gain": (dgain, of_gain),
        "bias": (dbias, of_bias),
    }
    return by_argument, s
