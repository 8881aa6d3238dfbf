"""Bounds of everything in a network that is not a conv, forward and backward.

The functions follow `nfspec.reference.operations` and `.derivatives`, step by step; the exact
values are taken from there.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nfspec.conformance.bounds.bounded import (
    Bounded,
    Terms,
    mean_over_image,
    product,
    root,
    scaled,
    together,
)
from nfspec.conformance.bounds.sums import entering, summing
from nfspec.conformance.cases.precision import Precision
from nfspec.plan import ECA, Activation, Dense, GlobalPool, Pool, Residual, SqueezeExcite
from nfspec.plan.activations import apply
from nfspec.reference import derivatives
from nfspec.reference import operations as ops

Array = NDArray[np.float64]

# A special function of the frameworks (exp, tanh, erf, log1p) is within 4 units in the last place,
# and a formula made of one has up to four operations around it.
FUNCTION = 16.0

# Beyond this |x|, exp(-|x|) is 0 in every format, and sigmoid, tanh and erf are at their limits:
# nothing cancels any more, and the slope of an activation is 0 or 1.
SATURATED = 128.0


def _store(value: Array, precision: Precision, times: float = 2.0) -> Array:
    return times * precision.store * np.abs(value) + precision.least


def activation(op: Activation, x: Array, precision: Precision) -> tuple[Array, Terms]:
    """Absolute near a function's zeros, where its formula cancels: a few u of 1 + |x|."""
    y = ops.activation(op, x)
    at = op.beta * x if op.beta_at == "before" else x
    u, size = precision.store, abs(op.gamma * op.beta)
    terms = {
        "function": FUNCTION * u * (np.abs(y) + size * _reach(op.kind, at)),
        "store": _store(y, precision),
    }
    if precision.operand:
        terms["operands"] = 1.2 * size * precision.operand * np.abs(x)
    return y, terms


def _reach(kind: str, x: Array) -> Array:
    """Size of the numbers that cancel in an activation's formula; 0 if it is piecewise linear."""
    if kind in ("identity", "relu", "relu6", "leaky_relu", "soft_sign"):
        return np.zeros_like(x)
    if kind in ("gelu_tanh", "gelu_erf", "silu"):
        return np.where(np.abs(x) < SATURATED, np.abs(x), 0.0)
    if kind in ("elu", "celu", "selu"):  # exp(x) - 1, by whichever of two functions
        return np.where(x < 0, 1.0, 0.0)
    return np.minimum(1.0, np.abs(x)) if kind == "tanh" else np.ones_like(x)


def activation_gradient(
    op: Activation, dy: Array, x: Array, precision: Precision
) -> tuple[Array, Terms]:
    dx = derivatives.activation(op, dy, x)
    size = np.abs(op.gamma * op.beta * dy)
    at = np.abs(op.beta * x if op.beta_at == "before" else x)
    at = np.where(at < SATURATED, at, 0.0)
    # The slope of gelu_tanh has 1 - tanh² in it, which cancels, times x and the cubic's own slope.
    reach = size * (1.0 + at * (1.0 + 0.134 * at**2 if op.kind == "gelu_tanh" else 1.0))
    u = precision.store
    smooth = op.kind not in ("identity", "relu", "relu6", "leaky_relu")
    own = FUNCTION * u * (np.abs(dx) + (reach if smooth else 0.0))
    return dx, {"function": own, "store": _store(dx, precision)}


def pool(op: Pool, x: Array, precision: Precision) -> tuple[Array, Terms]:
    """A maximum is exact, but for the rounding of what enters."""
    y = ops.pool(op, x)
    terms = {"operands": precision.operand * np.abs(y)}
    if op.kind == "avg":
        size = ops.pool(op, np.abs(x))
        terms["sum"] = op.window**2 * precision.accumulate * size
        terms["store"] = _store(size, precision)
        terms["operands"] = precision.operand * size
    return y, terms


def pool_gradient(op: Pool, dy: Array, x: Array, precision: Precision) -> tuple[Array, Terms]:
    """Windows that share a pixel add there, as many as fit."""
    dx = derivatives.pool(op, dy, x)
    size = derivatives.pool(op, np.abs(dy), x)
    return dx, {"sum": (op.window**2 + 2) * precision.store * size + precision.least}


def residual(
    op: Residual, branch: Array, shortcut: Array, gain: Array | None, precision: Precision
) -> tuple[Array, Terms]:
    factor = op.alpha * (1.0 if gain is None else float(gain))
    y = factor * branch + shortcut
    size = 3.0 * np.abs(factor * branch) + np.abs(shortcut)
    terms = {"store": precision.store * (size + np.abs(y)) + precision.least}
    if precision.operand:
        terms["operands"] = precision.operand * (2.0 * np.abs(factor * branch) + np.abs(shortcut))
    return y, terms


def global_pool(op: GlobalPool, x: Array, precision: Precision) -> tuple[Array, Terms]:
    """In float32 under any mode that stores less: the head is."""
    mean = mean_over_image(Bounded(x), "sum", precision)
    return mean.value, mean.terms


def dense(
    op: Dense, x: Array, kernel: Array, bias: Array, precision: Precision
) -> tuple[Array, Terms]:
    out = product(Bounded(x), Bounded(kernel), "sum", precision)
    y = out.value + bias
    own = precision.store * (np.abs(bias) + np.abs(y))
    return y, together(out.terms, {"store": own})


def dense_gradient(
    op: Dense, dy: Array, x: Array, kernel: Array, precision: Precision
) -> dict[str, tuple[Array, Terms]]:
    of_x = product(Bounded(dy), Bounded(kernel.T), "sum", precision)
    of_kernel = product(Bounded(x.T), Bounded(dy), "sum", precision)
    total, squares = dy.sum(axis=0), (dy**2).sum(axis=0)
    of_bias = summing(len(dy), total, squares, precision.accumulate) + _store(total, precision)
    return {
        "x": (of_x.value, of_x.terms),
        "kernel": (of_kernel.value, of_kernel.terms),
        "bias": (total, {"sum": of_bias}),
    }


def _activated(kind: str, slope: float, gamma: float, x: Bounded, precision: Precision) -> Bounded:
    """gamma · f(x), for the activations within squeeze-and-excitation."""
    u = precision.store
    value = gamma * apply(kind, x.value, slope)
    by = gamma * derivatives.slope(kind, x.value, slope)
    own = FUNCTION * u * (np.abs(value) + abs(gamma) * _reach(kind, x.value)) + precision.least
    return x.function(value, by, "activation", own)


def _gate(z: Bounded, gain: float, precision: Precision) -> Bounded:
    """gain · sigmoid(z)."""
    value = apply("sigmoid", z.value)
    own = FUNCTION * precision.store * value + precision.least
    return z.function(value, value * (1.0 - value), "sigmoid", own).by(gain)


def _se_steps(
    op: SqueezeExcite, x: Array, values: list[Array], precision: Precision
) -> tuple[Bounded, Bounded, Bounded, Bounded]:
    """The means, the activation's input, the hidden layer, and the sigmoid's input."""
    w0, b0, w1, b1 = values
    u = precision.store
    means = mean_over_image(Bounded(x), "mean", precision)
    before = product(means, Bounded(w0), "fc0", precision).plus(Bounded(b0)).rounded("fc0", u)
    hidden = _activated(op.activation, op.slope, op.gamma, before, precision)
    hidden = hidden.rounded("activation", u)
    z = product(hidden, Bounded(w1), "fc1", precision).plus(Bounded(b1)).rounded("fc1", u)
    return means, before, hidden, z


def squeeze_excite(
    op: SqueezeExcite, x: Array, values: list[Array], precision: Precision
) -> tuple[Array, Terms]:
    """`values` are fc0's kernel and bias, and fc1's."""
    *_, z = _se_steps(op, x, values, precision)
    gate = _gate(z, op.gain, precision)
    y = gate.over_image().times(Bounded(x)).rounded("store", precision.store, 3.0, precision.least)
    if precision.operand:
        y = y.rounded("operands", precision.operand)
    return y.value, y.terms


def squeeze_excite_gradient(
    op: SqueezeExcite, dy: Array, x: Array, values: list[Array], precision: Precision
) -> dict[str, tuple[Array, Terms]]:
    u = precision.store
    pixels = x.shape[1] * x.shape[2]
    means, before, hidden, z = _se_steps(op, x, values, precision)
    gate = _gate(z, op.gain, precision)
    slope = apply("sigmoid", z.value) * apply("sigmoid", -z.value)
    # The slope of sigmoid has a slope of a tenth at most.
    by_z = z.function(slope, np.full_like(slope, 0.1), "sigmoid", FUNCTION * u * slope)
    total, squares = (x * dy).sum(axis=(1, 2)), ((x * dy) ** 2).sum(axis=(1, 2))
    own = summing(pixels, total, squares, precision.accumulate)
    along = Bounded(total, {"along": own + 2.0 * u * np.abs(total)})
    dz = along.by(op.gain).times(by_z).rounded("store", u, 3.0)

    passed = product(dz, Bounded(values[2].T), "fc1", precision)
    by = op.gamma * derivatives.slope(op.activation, before.value, op.slope)
    # relu and its like: the slope is exact away from the kink, where no case lies.
    own = FUNCTION * u * (np.abs(by) + abs(op.gamma) * _reach(op.activation, before.value))
    curve = np.ones_like(by) if op.activation not in ("relu", "relu6", "leaky_relu") else 0.0 * by
    dbefore = passed.times(before.function(by, curve, "activation", own)).rounded("store", u)
    dmeans = product(dbefore, Bounded(values[0].T), "fc0", precision)
    spread = dmeans.by(1.0 / pixels).over_image()
    dx = gate.over_image().times(Bounded(dy)).plus(spread).rounded("store", u, 4.0, precision.least)

    def summed(d: Bounded) -> Bounded:
        """Over the batch."""
        n, value = len(d.value), d.value.sum(axis=0)
        own = summing(n, value, (d.value**2).sum(axis=0), precision.accumulate)
        passed = scaled(d.terms, lambda term: root((term**2).sum(axis=0)))
        return Bounded(value, together(passed, {"sum": own + u * np.abs(value)}))

    def transposed(d: Bounded) -> Bounded:
        return d.map(np.transpose)

    gradients = {
        "x": dx,
        "fc0.kernel": product(transposed(means), dbefore, "sum", precision),
        "fc0.bias": summed(dbefore),
        "fc1.kernel": product(transposed(hidden), dz, "sum", precision),
        "fc1.bias": summed(dz),
    }
    return {name: (d.value, d.terms) for name, d in gradients.items()}


def _taps(means: Bounded, kernel: Array, precision: Precision) -> Bounded:
    """A kernel sliding over the channels of (N, C), with zeros beyond the ends."""
    half = len(kernel) // 2

    def windows(array: Array) -> Array:
        return sliding_window_view(np.pad(array, ((0, 0), (half, half))), len(kernel), axis=1)

    view = windows(means.value)
    value, squares = view @ kernel, view**2 @ kernel**2
    own = summing(len(kernel), value, squares, precision.accumulate)
    own = own + entering(squares, precision.operand) + _store(value, precision, 1.0)
    passed = scaled(means.terms, lambda term: root(windows(term) ** 2 @ kernel**2))
    return Bounded(value, together(passed, {"conv": own}))


def eca(op: ECA, x: Array, kernel: Array, precision: Precision) -> tuple[Array, Terms]:
    z = _taps(mean_over_image(Bounded(x), "mean", precision), kernel, precision)
    gate = _gate(z, op.gain, precision).over_image()
    y = gate.times(Bounded(x)).rounded("store", precision.store, 3.0, precision.least)
    if precision.operand:
        y = y.rounded("operands", precision.operand)
    return y.value, y.terms


def eca_gradient(
    op: ECA, dy: Array, x: Array, kernel: Array, precision: Precision
) -> dict[str, tuple[Array, Terms]]:
    u, half = precision.store, op.kernel // 2
    pixels = x.shape[1] * x.shape[2]
    means = mean_over_image(Bounded(x), "mean", precision)
    z = _taps(means, kernel, precision)
    slope = apply("sigmoid", z.value) * apply("sigmoid", -z.value)
    by_z = z.function(slope, np.full_like(slope, 0.1), "sigmoid", FUNCTION * u * slope)
    total, squares = (x * dy).sum(axis=(1, 2)), ((x * dy) ** 2).sum(axis=(1, 2))
    own = summing(pixels, total, squares, precision.accumulate) + 2.0 * u * np.abs(total)
    dz = Bounded(total, {"along": own}).by(op.gain).times(by_z).rounded("store", u, 3.0)
    spread = _taps(dz, kernel[::-1], precision).by(1.0 / pixels).over_image()
    gate = _gate(z, op.gain, precision).over_image()
    dx = gate.times(Bounded(dy)).plus(spread).rounded("store", u, 4.0, precision.least)

    def windows(array: Array) -> Array:
        padded = np.pad(array, ((0, 0), (half, half)))
        return sliding_window_view(padded, op.kernel, axis=1).reshape(-1, op.kernel)

    of_kernel = product(
        means.map(windows).map(np.transpose),
        dz.map(lambda array: array.reshape(-1, 1)),
        "sum",
        precision,
    ).map(lambda array: array[:, 0])
    return {"x": (dx.value, dx.terms), "kernel": (of_kernel.value, of_kernel.terms)}
