"""The derivative of each operation in float64, by hand from its formula in `operations`.

For a scalar L that depends on an operation's output y, each function takes `dy`, dL/dy, and the
arrays that y was computed from; it returns the derivative of L by each of these arrays, in their
order (the vector-Jacobian product, vjp). Layouts: NHWC, HWIO, IO.

At a kink of an activation the derivative is that on the left; relu6 is flat at 6, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Padding,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.activations import SELU_ALPHA, SELU_SCALE, apply
from nfspec.reference import operations as ops

Array = NDArray[np.float64]

_normal_cdf = np.frompyfunc(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)), 1, 1)


def _gelu_erf(x: Array, negative: float) -> Array:
    density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return np.asarray(_normal_cdf(x), np.float64) + x * density


def _gelu_tanh(x: Array, negative: float) -> Array:
    c = math.sqrt(2.0 / math.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3 * 0.044715 * x * x)


def _elu(x: Array, negative: float) -> Array:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0.0)))


# Activation to f'(x); `negative` is leaky_relu's slope for x < 0.
SLOPES: Mapping[str, Callable[[Array, float], Array]] = {
    "identity": lambda x, negative: np.ones_like(x),
    "celu": _elu,
    "elu": _elu,
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "leaky_relu": lambda x, negative: np.where(x > 0, 1.0, negative),
    "log_sigmoid": lambda x, negative: apply("sigmoid", -x),
    "relu": lambda x, negative: np.where(x > 0, 1.0, 0.0),
    "relu6": lambda x, negative: np.where((x > 0) & (x < 6), 1.0, 0.0),
    "selu": lambda x, negative: (
        SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0.0)))
    ),
    "sigmoid": lambda x, negative: apply("sigmoid", x) * apply("sigmoid", -x),
    "silu": lambda x, negative: apply("sigmoid", x) * (1.0 + x * apply("sigmoid", -x)),
    "soft_sign": lambda x, negative: (1.0 + np.abs(x)) ** -2.0,
    "softplus": lambda x, negative: apply("sigmoid", x),
    "tanh": lambda x, negative: 1.0 - np.tanh(x) ** 2,
}


def slope(kind: str, x: Array, negative: float) -> Array:
    """f'(x) of an activation without gamma; `negative` is leaky_relu's slope for x < 0.

    Raises:
        KeyError: The name is not known.
    """
    return SLOPES[kind](x, negative)


def activation(op: Activation, dy: Array, x: Array) -> Array:
    # gamma · beta either way: beta is a factor of f, or the derivative of its argument.
    at = op.beta * x if op.beta_at == "before" else x
    return op.gamma * op.beta * slope(op.kind, at, op.slope) * dy


def standardise(op: WSConv, dy: Array, kernel: Array, gain: Array) -> tuple[Array, Array]:
    """Derivative of the kernel that convolves. Where `max` takes eps, the divisor is a constant."""
    if op.eps_rule == "none":
        return op.gamma * gain * dy, op.gamma * (dy * kernel).sum(axis=(0, 1, 2))
    n = op.fan_in
    centred = kernel - kernel.mean(axis=(0, 1, 2))
    variance = (centred**2).sum(axis=(0, 1, 2)) / (n - op.ddof)
    # The divisor, and its derivative by the variance.
    if op.eps_rule == "max":
        divisor = np.sqrt(np.maximum(n * variance, op.eps))
        by_variance = np.where(n * variance > op.eps, 0.5 * n / divisor, 0.0)
    elif op.eps_rule == "add":
        divisor = np.sqrt(n * (variance + op.eps))
        by_variance = 0.5 * n / divisor
    else:
        std = np.sqrt(variance)
        divisor = math.sqrt(n) * (std + op.eps)
        # A constant kernel is a kink of the std; `centred` is 0 there, so no gradient passes.
        by_variance = np.divide(0.5 * math.sqrt(n), std, out=np.zeros_like(std), where=std > 0)
    along = (dy * centred).sum(axis=(0, 1, 2))
    dgain = op.gamma * along / divisor
    dvariance = -op.gamma * gain * along / divisor**2 * by_variance
    dcentred = op.gamma * gain / divisor * dy + 2.0 / (n - op.ddof) * dvariance * centred
    return dcentred - dcentred.mean(axis=(0, 1, 2)), dgain


def windows(
    dy: Array, shape: tuple[int, ...], stride: int, padding: Padding, dilation: int = 1
) -> Array:
    """Derivative of `operations.windows`: adds (N, Ho, Wo, C, k, k) up to (N, H, W, C), `shape`."""
    kernel = dy.shape[-1]
    if kernel == stride == 1:
        return dy[..., 0, 0]
    extent = 1 + dilation * (kernel - 1)
    (top, bottom), (left, right) = (ops.pads(side, extent, stride, padding) for side in shape[1:3])
    padded = np.zeros((shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3]))
    view = sliding_window_view(padded, (extent, extent), axis=(1, 2), writeable=True)
    for i, j in np.ndindex(kernel, kernel):  # one at a time, as windows share pixels
        view[:, ::stride, ::stride, :, i * dilation, j * dilation] += dy[..., i, j]
    return padded[:, top : top + shape[1], left : left + shape[2]]


def conv(
    dy: Array,
    x: Array,
    kernel: Array,
    stride: int,
    groups: int,
    padding: Padding,
    dilation: int = 1,
) -> tuple[Array, Array]:
    """Derivatives by images and kernel."""
    size, _, inputs, channels = kernel.shape
    outputs = channels // groups
    view = ops.windows(x, size, stride, padding, 0.0, dilation)
    dkernel = np.empty_like(kernel)
    for g in range(groups):
        rows, columns = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
        patches = view[:, :, :, rows].transpose(0, 1, 2, 4, 5, 3).reshape(-1, size**2 * inputs)
        of_group = patches.T @ dy[..., columns].reshape(-1, outputs)
        dkernel[..., columns] = of_group.reshape(size, size, inputs, outputs)
    return conv_images(dy, x.shape, kernel, stride, groups, padding, dilation), dkernel


def conv_images(
    dy: Array,
    shape: tuple[int, ...],
    kernel: Array,
    stride: int,
    groups: int,
    padding: Padding,
    dilation: int = 1,
) -> Array:
    """Derivative of a conv by its images, whose shape is given."""
    size, _, inputs, channels = kernel.shape
    outputs = channels // groups
    dx = np.empty(shape)
    for g in range(groups):
        rows, columns = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
        flat = dy[..., columns].reshape(-1, outputs)
        dpatches = flat @ kernel[..., columns].reshape(-1, outputs).T
        dview = dpatches.reshape(*dy.shape[:3], size, size, inputs).transpose(0, 1, 2, 5, 3, 4)
        dx[..., rows] = windows(dview, (*shape[:3], inputs), stride, padding, dilation)
    return dx


def folded_conv(
    op: Conv, dy: Array, x: Array, kernel: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """Derivatives by images, kernel and bias."""
    before = ops.conv(x, kernel, *op.sliding) + bias
    dbefore = dy * slope(op.activation, before, op.slope)
    dx, dkernel = conv(dbefore, x, kernel, *op.sliding)
    return dx, dkernel, dbefore.sum(axis=(0, 1, 2))


def ws_conv(
    op: WSConv, dy: Array, x: Array, kernel: Array, gain: Array
) -> tuple[Array, Array, Array, Array]:
    """Derivatives by images, kernel, gain and bias."""
    standard = ops.standardise(op, kernel, gain)
    dx, dstandard = conv(dy, x, standard, *op.sliding)
    return dx, *standardise(op, dstandard, kernel, gain), dy.sum(axis=(0, 1, 2))


def pool(op: Pool, dy: Array, x: Array) -> Array:
    """A maximum's derivative goes to the first of equals in a window, row by row."""
    how = (op.window, op.stride, op.padding)
    if op.kind == "max":
        view = ops.windows(x, *how, -np.inf)
        first = view.reshape(*view.shape[:4], -1).argmax(axis=-1)
        share = (np.arange(op.window**2) == first[..., None]).reshape(view.shape).astype(float)
    else:
        inside = ops.windows(np.ones_like(x[:1, :, :, :1]), *how, 0.0)
        share = inside / (op.window**2 if op.counted else inside.sum(axis=(4, 5), keepdims=True))
    return windows(share * dy[..., None, None], x.shape, op.stride, op.padding)


def _spread(dmeans: Array, shape: tuple[int, ...]) -> Array:
    """Derivative of the mean over height and width: (N, C) to (N, 1, 1, C), to be broadcast."""
    return dmeans[:, None, None, :] / (shape[1] * shape[2])


def _gated(op: SqueezeExcite | ECA, dy: Array, x: Array, gate: Array) -> tuple[Array, Array]:
    """Derivatives by the images directly, and by the gate times its gain."""
    if op.gate_only:
        return np.zeros_like(x), dy
    return op.gain * gate[:, None, None, :] * dy, (x * dy).sum(axis=(1, 2))


def squeeze_excite(
    op: SqueezeExcite, dy: Array, x: Array, w0: Array, b0: Array, w1: Array, b1: Array
) -> tuple[Array, Array, Array, Array, Array]:
    means = x.mean(axis=(1, 2))
    before = means @ w0 + b0
    hidden = op.gamma * apply(op.activation, before, op.slope)
    z = hidden @ w1 + b1
    direct, dgate = _gated(op, dy, x, apply("sigmoid", z))
    dz = op.gain * dgate * slope("sigmoid", z, 0.0)
    dbefore = dz @ w1.T * op.gamma * slope(op.activation, before, op.slope)
    dx = direct + _spread(dbefore @ w0.T, x.shape)
    return dx, means.T @ dbefore, dbefore.sum(axis=0), hidden.T @ dz, dz.sum(axis=0)


def eca(op: ECA, dy: Array, x: Array, kernel: Array) -> tuple[Array, Array]:
    half = op.kernel // 2
    means = np.pad(x.mean(axis=(1, 2)), ((0, 0), (half, half)))
    view = sliding_window_view(means, op.kernel, axis=1)
    z = view @ kernel
    direct, dgate = _gated(op, dy, x, apply("sigmoid", z))
    dz = op.gain * dgate * slope("sigmoid", z, 0.0)
    # Channel c is tap j of the window that is centred on channel c - j + half.
    dmeans = sliding_window_view(np.pad(dz, ((0, 0), (half, half))), op.kernel, axis=1)
    return direct + _spread(dmeans @ kernel[::-1], x.shape), np.einsum("ncj,nc->j", view, dz)


def residual(
    op: Residual, dy: Array, inputs: list[Array], values: list[Array]
) -> tuple[list[Array], list[Array]]:
    """Derivatives by the inputs, and by the skip gain where there is one."""
    gain = float(values[0]) if values else 1.0
    along = (inputs[0] * dy).sum(axis=(1, 2))
    if len(inputs) == 3:
        gate = inputs[2]
        dgain = np.asarray(op.alpha * (along * gate).sum())
        of_branch = op.alpha * gain * gate[:, None, None, :] * dy
        return [of_branch, dy, op.alpha * gain * along], [dgain] if values else []
    dgain = np.asarray(op.alpha * along.sum())
    return [op.alpha * gain * dy, dy], [dgain] if values else []


def vjp(
    op: Operation, dy: Array, inputs: list[Array], values: list[Array]
) -> tuple[list[Array], list[Array]]:
    """Derivative of one operation as `network.evaluate` runs it.

    Args:
        op: The operation.
        dy: Derivative by its output.
        inputs: Arrays that it read.
        values: Its parameters, in the order of `op.parameters`.

    Returns:
        Derivatives by `inputs`, and by `values`.
    """
    x = inputs[0]
    match op:
        case WSConv():
            kernel, *gains, _ = values
            gain = gains[0] if gains else np.ones(op.out_channels)
            first, dkernel, dgain, dbias = ws_conv(op, dy, x, kernel, gain)
            return [first], [dkernel, *([dgain] if gains else []), dbias]
        case Conv():
            first, *rest = folded_conv(op, dy, x, *values)
            return [first], rest
        case Activation():
            return [activation(op, dy, x)], []
        case Pool():
            return [pool(op, dy, x)], []
        case SqueezeExcite():
            first, *rest = squeeze_excite(op, dy, x, *values)
            return [first], rest
        case ECA():
            first, *rest = eca(op, dy, x, *values)
            return [first], rest
        case Residual():
            return residual(op, dy, inputs, values)
        case GlobalPool():
            return [np.broadcast_to(op.scale * _spread(dy, x.shape), x.shape)], []
        case Dense():
            return [dy @ values[0].T], [x.T @ dy, dy.sum(axis=0)]
        case StochasticDepth() | Dropout():
            return [dy], []  # as evaluated: neither drops anything
        case _:
            raise unknown_operation(op, "nfspec.reference.loss_and_gradients")
