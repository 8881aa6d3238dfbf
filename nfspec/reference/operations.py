"""Each kind of operation in float64: NHWC activations, HWIO kernels, IO dense kernels.

Sources: Brock et al. 2021, arXiv:2101.08692 eq. 6 (weight standardisation) and arXiv:2102.06171 §4;
Hu et al. 2018, arXiv:1709.01507 (SE); Wang et al. 2020, arXiv:1910.03151 (ECA).
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nfspec.plan import ECA, Activation, Padding, Pool, SqueezeExcite, WSConv
from nfspec.plan.activations import apply

Array = NDArray[np.float64]


def pads(side: int, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Padding before and after one spatial side, for windows of a side `kernel`.

    `same` makes ceil(side / stride) outputs and puts an odd pixel after; `symmetric` puts
    (stride + kernel - 2) // 2 on both ends.
    """
    if padding == "valid":
        return 0, 0
    if padding == "symmetric":
        return (stride + kernel - 2) // 2, (stride + kernel - 2) // 2
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def windows(
    x: Array, kernel: int, stride: int, padding: Padding, fill: float, dilation: int = 1
) -> Array:
    """All windows of a padded image: (N, Ho, Wo, C, kernel, kernel), a view.

    The pixels of a window are `dilation` px apart.
    """
    extent = 1 + dilation * (kernel - 1)
    around = [(0, 0), *(pads(side, extent, stride, padding) for side in x.shape[1:3]), (0, 0)]
    if any(sum(pair) for pair in around):
        x = np.pad(x, around, constant_values=fill)
    view = sliding_window_view(x, (extent, extent), axis=(1, 2))
    return view[:, ::stride, ::stride, :, ::dilation, ::dilation]


def divisor(op: WSConv, kernel: Array) -> Array:
    """The scale that weight standardisation divides each output channel's weights by, (O,)."""
    return centred(op, kernel)[1]


def centred(op: WSConv, kernel: Array) -> tuple[Array, Array]:
    """A kernel less the mean of each output channel, and the divisor: see `divisor`.

    Under the rule `none` they are the kernel itself, and 1."""
    n = op.fan_in
    if op.eps_rule == "none":
        return kernel.copy(), np.ones(op.out_channels)
    around = kernel - kernel.mean(axis=(0, 1, 2))
    variance = np.einsum("hwio,hwio->o", around, around) / (n - op.ddof)
    if op.eps_rule == "max":
        by = np.sqrt(np.maximum(n * variance, op.eps))
    elif op.eps_rule == "add":
        by = np.sqrt(n * (variance + op.eps))
    else:
        by = np.sqrt(n) * (np.sqrt(variance) + op.eps)
    return around, np.asarray(by)


def standardise(op: WSConv, kernel: Array, gain: Array) -> Array:
    """The kernel that convolves, (kh, kw, I/groups, O): gamma · gain · (w - mean) / divisor."""
    around, by = centred(op, kernel)
    around *= op.gamma * gain / by
    return around


def conv(
    x: Array, kernel: Array, stride: int, groups: int, padding: Padding, dilation: int = 1
) -> Array:
    """Grouped cross-correlation, (N, H, W, I) by (k, k, I/groups, O) to (N, Ho, Wo, O)."""
    view = windows(x, kernel.shape[0], stride, padding, 0.0, dilation)
    n, height, width = view.shape[:3]
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    out = np.empty((n, height, width, kernel.shape[3]))
    for g in range(groups):
        patches = view[:, :, :, g * inputs : (g + 1) * inputs].transpose(0, 1, 2, 4, 5, 3)
        columns = slice(g * outputs, (g + 1) * outputs)
        flat = kernel[..., columns].reshape(-1, outputs)
        out[..., columns] = (patches.reshape(-1, len(flat)) @ flat).reshape(n, height, width, -1)
    return out


def activation(op: Activation, x: Array) -> Array:
    if op.beta_at == "before":
        return op.gamma * apply(op.kind, op.beta * x, op.slope)
    return op.gamma * op.beta * apply(op.kind, x, op.slope)


def pool(op: Pool, x: Array) -> Array:
    if op.kind == "max":
        return windows(x, op.window, op.stride, op.padding, -np.inf).max(axis=(4, 5))
    total = windows(x, op.window, op.stride, op.padding, 0.0).sum(axis=(4, 5))
    if op.counted:
        return total / op.window**2
    inside = windows(np.ones_like(x[:1, :, :, :1]), op.window, op.stride, op.padding, 0.0)
    return total / inside.sum(axis=(4, 5))


def squeeze_excite(
    op: SqueezeExcite, x: Array, w0: Array, b0: Array, w1: Array, b1: Array
) -> Array:
    hidden = op.gamma * apply(op.activation, x.mean(axis=(1, 2)) @ w0 + b0, op.slope)
    return _gated(op, x, apply("sigmoid", hidden @ w1 + b1))


def eca(op: ECA, x: Array, kernel: Array) -> Array:
    half = op.kernel // 2
    means = np.pad(x.mean(axis=(1, 2)), ((0, 0), (half, half)))
    return _gated(op, x, apply("sigmoid", sliding_window_view(means, op.kernel, axis=1) @ kernel))


def _gated(op: SqueezeExcite | ECA, x: Array, gate: Array) -> Array:
    return op.gain * gate if op.gate_only else op.gain * gate[:, None, None, :] * x
