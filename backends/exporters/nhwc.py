"""The folded plan in the operators of a framework whose images are (N, H, W, C).

JAX and TensorFlow each define `Operators`; the walk over the plan is here. Kernels are as the plan
has them, HWIO and IO.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from nfspec import plan as p
from nfspec.backends.exporters.layout import padding
from nfspec.backends.exporters.settings import Network
from nfspec.errors import InputError
from nfspec.plan.counting import Shape, shapes

Value = Any
Around = list[tuple[int, int]] | None  # before and after, height and width; None: as `same` says


class Operators(Protocol):
    """The operators of a framework that a folded plan needs."""

    def convolve(
        self, x: Value, kernel: Value, stride: int, dilation: int, around: Around
    ) -> Value:
        """A conv; a kernel that has fewer inputs than the image has channels is grouped."""

    def pool(self, x: Value, op: p.Pool, around: Around) -> Value:
        """An average pool, or a max pool, which does not see padding."""

    def activate(self, kind: str, x: Value, slope: float) -> Value:
        """An activation by its name in specs, without gamma."""

    def mean(self, x: Value) -> Value:
        """The mean over height and width, (N, C)."""

    def slide(self, x: Value, kernel: Value) -> Value:
        """A kernel of some taps that slides over the channels of (N, C), zeros beyond the ends."""

    def cast(self, x: Value, dtype: str) -> Value:
        """A value in another dtype."""

    def transpose(self, x: Value, axes: tuple[int, ...]) -> Value:
        """A value with its axes in another order."""

    def scope(self, name: str) -> AbstractContextManager[Any]:
        """A scope whose name the nodes of an operation of the plan have in the file."""


def outputs_of(
    network: Network, ops: Operators, weights: Mapping[str, Value], images: Value
) -> dict[str, Value]:
    """The outputs of a file by name, for images in the file's layout.

    Args:
        network: The network.
        ops: The framework's operators.
        weights: Canonical name to value, in the dtype of the arithmetic.
        images: A batch.
    """
    settings, how = network.settings, network.input
    nhwc = settings.layout == "nhwc"
    x = images if nhwc else ops.transpose(images, (0, 2, 3, 1))
    if settings.preprocess:
        mean, std = (np.asarray(each, np.float32) for each in (how.mean, how.std))
        x = (ops.cast(x, "float32") - 255.0 * mean) * (1.0 / (255.0 * std)).astype(np.float32)
    if settings.dtype == "f16":
        x = ops.cast(x, "float16")
    plan = network.folded
    known = {} if settings.size is None else shapes(plan, *settings.size)
    values = {p.INPUT: x}
    for op in plan.ops:
        with ops.scope(op.name):
            values[op.name] = _value(op, [values[name] for name in op.inputs], ops, weights, known)
    found = {}
    for name in settings.outputs:
        value = ops.cast(values[plan.taps[name]], "float32")
        image = network.plan.tap_info[name].stride is not None and not nhwc
        found[name] = ops.transpose(value, (0, 3, 1, 2)) if image else value
    return found


def _value(
    op: p.Operation,
    inputs: list[Value],
    ops: Operators,
    weights: Mapping[str, Value],
    known: Mapping[str, Shape],
) -> Value:
    x, own = inputs[0], [weights[q.name] for q in op.parameters]
    match op:
        case p.Conv():
            around = _around(op.extent, op, known)
            y = ops.convolve(x, own[0], op.stride, op.dilation, around) + own[1]
            return ops.activate(op.activation, y, op.slope)
        case p.Activation():
            before = op.beta_at == "before"
            y = ops.activate(op.kind, _times(x, op.beta if before else 1.0), op.slope)
            return _times(y, op.gamma * (1.0 if before else op.beta))
        case p.Pool():
            around = _around(op.window, op, known)
            return ops.pool(x, op, around)
        case p.SqueezeExcite():
            w0, b0, w1, b1 = own
            hidden = ops.activate(op.activation, ops.mean(x) @ w0 + b0, op.slope)
            return _gated(op, x, _times(hidden, op.gamma) @ w1 + b1, ops)
        case p.ECA():
            return _gated(op, x, ops.slide(ops.mean(x), own[0]), ops)
        case p.Residual():
            branch, shortcut, *gates = inputs
            factor = _times(gates[0] if gates else branch, op.alpha)
            for gain in own:
                factor = factor * gain
            return (branch * factor[:, None, None, :] if gates else factor) + shortcut
        case p.GlobalPool():
            return _times(ops.mean(x), op.scale)
        case p.Dense():
            return x @ own[0] + own[1]
        case p.WSConv() | p.StochasticDepth() | p.Dropout():
            raise InputError(f"{op.name}: fold the plan first; this has no place in a file")
        case _:
            raise p.unknown_operation(op, "nfspec.export")


def _times(x: Value, factor: float) -> Value:
    return x if factor == 1.0 else x * factor


def _gated(op: p.SqueezeExcite | p.ECA, x: Value, gate: Value, ops: Operators) -> Value:
    gate = _times(ops.activate("sigmoid", gate, 0.0), op.gain)
    return gate if op.gate_only else x * gate[:, None, None, :]


def _around(kernel: int, op: p.Convolution | p.Pool, known: Mapping[str, Shape]) -> Around:
    found = padding(kernel, op, known.get(op.inputs[0]))
    return None if found is None else list(zip(*found, strict=True))
