"""Faults of the conv: weight standardisation, padding, layout, precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from nfspec.conformance.cases.precision import truncated
from nfspec.conformance.faults.base import IN_GRADIENTS, Fault, of_arrays, of_kind, patched
from nfspec.plan import WSConv

LAYER = "nfspec.backends.layers.ws_conv:WSConv2D"
OVER = (0, 1, 2)


def _standardised(make: Any) -> Any:
    """A patch of weight standardisation: `make(layer, kernel, ops)` takes its place, where a conv
    has it."""

    def wrap(original: Any) -> Any:
        def standardised_kernel(layer: Any) -> Any:
            from keras import ops

            if layer.eps_rule == "none":
                return original(layer)
            return make(layer, ops.convert_to_tensor(layer.kernel), ops)

        return standardised_kernel

    return patched(f"{LAYER}.standardised_kernel", wrap)


def _fan_in(layer: Any) -> int:
    return int(np.prod(layer.kernel.shape[:3]))


def _scale(layer: Any, variance: Any, ops: Any) -> Any:
    n = _fan_in(layer)
    if layer.eps_rule == "max":
        scale = ops.rsqrt(ops.maximum(n * variance, layer.eps))
    elif layer.eps_rule == "add":
        scale = ops.rsqrt(n * (variance + layer.eps))
    else:
        scale = n**-0.5 / (ops.sqrt(variance) + layer.eps)
    gain = 1.0 if layer.gain_init is None else ops.convert_to_tensor(layer.gain)
    return scale * gain * layer.gamma


def _no_mean(layer: Any, kernel: Any, ops: Any) -> Any:
    return kernel * _scale(layer, ops.var(kernel, axis=OVER), ops)


def _one_pass(layer: Any, kernel: Any, ops: Any) -> Any:
    mean = ops.mean(kernel, axis=OVER)
    variance = ops.mean(kernel * kernel, axis=OVER) - mean * mean
    return (kernel - mean) * _scale(layer, ops.maximum(variance, 0.0), ops)


def _wrong_axis(layer: Any, kernel: Any, ops: Any) -> Any:
    """Statistics over each kernel of k x k, or over all channels where that is one weight."""
    over = (0, 1) if layer.kernel_size > 1 else (0, 1, 2, 3)
    centred = kernel - ops.mean(kernel, axis=over, keepdims=True)
    return centred * _scale(layer, ops.mean(centred * centred, axis=OVER), ops)


def _detached(part: str) -> Any:
    """Correct values, through which a gradient does not pass."""

    def make(layer: Any, kernel: Any, ops: Any) -> Any:
        fixed = ops.stop_gradient(kernel)
        of_mean = fixed if part == "mean" else kernel
        of_scale = fixed if part == "scale" else kernel
        centred = kernel - ops.mean(of_mean, axis=OVER)
        away = of_scale - ops.mean(of_scale, axis=OVER)
        variance = ops.sum(away * away, axis=OVER) / (_fan_in(layer) - layer.ddof)
        return centred * _scale(layer, variance, ops)

    return make


def _weight_rounded(original: Any) -> Any:
    def standardised_kernel(layer: Any) -> Any:
        from keras import ops

        kernel = original(layer)
        return ops.cast(ops.cast(kernel, "bfloat16"), kernel.dtype)

    return standardised_kernel


def _around_conv(before: Any, after: Any) -> Any:
    """A patch of the conv itself: `before` changes its inputs, `after` its output."""

    def wrap(original: Any) -> Any:
        def conv(layer: Any, x: Any, kernel: Any, bias: Any) -> Any:
            from keras import ops

            return after(ops, original(layer, *before(ops, x, kernel), bias))

        return conv

    return patched(f"{LAYER}._conv", wrap)


def _entering(bits: int) -> Any:
    """A patch that rounds images to so many bits of fraction as they enter a conv."""

    def rounded(ops: Any, x: Any, kernel: Any) -> Any:
        # Adding and subtracting a multiple leaves the leading bits (Veltkamp).
        multiple = ops.cast(x, "float32") * (2.0 ** (23 - bits) + 1.0)
        leading = multiple - (multiple - ops.cast(x, "float32"))
        return ops.cast(leading, x.dtype), kernel

    return _around_conv(rounded, lambda ops, y: y)


def _flip(ops: Any, x: Any, over: tuple[int, int] = (1, 2)) -> Any:
    return ops.flip(x, axis=over)


def _grouped(op: WSConv, kernel: Any) -> Any:
    """Output channels of different groups interleaved."""
    return kernel.reshape(*kernel.shape[:3], op.groups, -1).swapaxes(3, 4).reshape(kernel.shape)


def _other_padding(op: WSConv) -> str:
    return "same" if op.padding == "symmetric" else "symmetric"


def _field(name: str, what: str, *first: str, **changes: Any) -> Fault:
    return Fault(name, what, first, op=of_kind(WSConv, **changes))


def _call(name: str, what: str, *first: str, change: Any) -> Fault:
    return Fault(name, what, first, arrays=of_arrays(WSConv, change))


def _patch(name: str, what: str, *first: str, patch: Any, alone: str = "") -> Fault:
    return Fault(name, what, first, alone=alone, patch=patch)


CONVS = (
    _field("ws-ddof", "unbiased variance for biased, or the reverse", "WS-01",
           ddof=lambda op: 1 - op.ddof),
    _field("ws-eps-value", "eps ten times as large", "WS-01", eps=lambda op: 10.0 * op.eps),
    _field("ws-eps-rule", "eps added to the variance, or max(n·v, eps) instead", "WS-01", "WS-04",
           eps_rule=lambda op: "add" if op.eps_rule == "max" else "max"),
    _field("ws-eps-place", "eps added to the std", "WS-01",
           eps_rule=lambda op: "add" if op.eps_rule == "add_to_std" else "add_to_std"),
    _field("ws-no-gamma", "gamma left out of the kernel", "WS-01", gamma=lambda op: 1.0 if
           op.gamma != 1.0 else 1.7881293296813965),
    _field("ws-no-fan-in", "the square root of the fan-in left out", "WS-01",
           gamma=lambda op: op.gamma * op.fan_in**0.5),
    _field("ws-total-fan-in", "the fan-in of all groups together", "WS-01",
           gamma=lambda op: op.gamma * op.groups**-0.5),
    _field("conv-padding", "symmetric padding for same, or the reverse", "EXACT-02", "WS-01",
           padding=_other_padding),
    _field("conv-no-dilation", "dilation left out", "EXACT-02", "WS-01", dilation=lambda op: 1),
    _call("ws-no-gain", "the gain left out", "WS-01",
          change=lambda op, call: {"gain": np.ones_like(call["gain"])}),
    _call("ws-gain-1e-4", "the gain off by 1e-4", "WS-01",
          change=lambda op, call: {"gain": call["gain"] * (1 + 1e-4)}),
    _call("conv-kernel-flipped", "convolution for cross-correlation", "EXACT-02", "WS-01",
          change=lambda op, call: {"kernel": call["kernel"][::-1, ::-1]}),
    _call("conv-kernel-transposed", "height and width of the kernel swapped", "EXACT-02", "WS-01",
          change=lambda op, call: {"kernel": call["kernel"].swapaxes(0, 1)}),
    _call("conv-channels-reversed", "input channels in another order", "EXACT-01", "WS-01",
          change=lambda op, call: {"kernel": call["kernel"][:, :, ::-1]}),
    _call("conv-groups-mixed", "output channels of the groups interleaved", "EXACT-02", "WS-01",
          change=lambda op, call: {"kernel": _grouped(op, call["kernel"])}),
    _call("conv-no-bias", "the bias left out", "EXACT-01", "WS-01",
          change=lambda op, call: {"bias": np.zeros_like(call["bias"])}),
    _patch("conv-input-tf32", "images rounded to TF32", "MODE-01", "WS-01", patch=_entering(10)),
    _patch("conv-input-bf16", "images rounded to bfloat16", "MODE-01", "WS-01",
           patch=_entering(7)),
    _call("ws-kernel-bf16", "the kernel rounded to bfloat16 before its statistics", "WS-01",
          change=lambda op, call: {"kernel": truncated(call["kernel"], 7)}),
    _patch("ws-weight-bf16", "the standardised kernel rounded to bfloat16", "WS-01",
           patch=patched(f"{LAYER}.standardised_kernel", _weight_rounded)),
    _patch("ws-no-mean", "the mean not subtracted", "WS-01", "WS-03",
           patch=_standardised(_no_mean)),
    _patch("ws-one-pass", "variance as E[w²] - m²", "WS-01", patch=_standardised(_one_pass),
           alone="as large as rounding where a network's weights have small means"),
    _patch("ws-wrong-axis", "statistics over the wrong axes", "WS-01",
           patch=_standardised(_wrong_axis)),
    _patch("ws-mean-detached", "no gradient through the mean", "WS-02",
           patch=_standardised(_detached("mean")), alone=IN_GRADIENTS),
    _patch("ws-scale-detached", "no gradient through the variance", "WS-02",
           patch=_standardised(_detached("scale")), alone=IN_GRADIENTS),
    _patch("conv-pixel-before", "same padding's odd pixel before the image", "EXACT-02", "WS-01",
           patch=_around_conv(lambda ops, x, kernel: (_flip(ops, x),
                                                      _flip(ops, kernel, (0, 1))), _flip)),
    _patch("conv-stride-offset", "the image shifted by a pixel", "EXACT-02", "WS-01",
           patch=_around_conv(lambda ops, x, kernel: (ops.roll(x, 1, axis=1), kernel),
                              lambda ops, y: y)),
)  # fmt: skip
