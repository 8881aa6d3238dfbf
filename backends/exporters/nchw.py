"""The folded plan in the operators of a library whose images are (N, C, H, W).

OpenVINO and Core ML each define `Operators`; the walk over the plan is here. Vectors of channels
are (N, C, 1, 1) until the classifier, so that nothing is reshaped. Weights have the form of
`places`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nfspec import plan as p
from nfspec.backends.exporters.layout import padding
from nfspec.errors import InputError
from nfspec.plan.counting import Shape

Value = Any
Around = tuple[list[int], list[int]] | None  # before, after, height and width; None: as `same` says


@dataclass(frozen=True)
class Sliding:
    """The way in which a kernel slides over an image, alike in both directions."""

    groups: int = 1
    stride: int = 1
    dilation: int = 1


class Operators(Protocol):
    """The operators of a library that a folded plan needs."""

    def convolve(
        self, x: Value, kernel: Value, bias: Value | None, how: Sliding, around: Around
    ) -> Value:
        """A conv with a bias, if there is one."""

    def pool(self, x: Value, op: p.Pool, around: Around) -> Value:
        """An average pool, or a max pool, which does not see padding."""

    def activate(self, kind: str, x: Value, slope: float) -> Value:
        """An activation by its name in specs, without gamma."""

    def scale(self, x: Value, factor: float) -> Value:
        """A value times a number that is not 1."""

    def multiply(self, x: Value, y: Value) -> Value:
        """The product of two values, one of which may be a weight or a vector of channels."""

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two images."""

    def mean(self, x: Value, keep: bool) -> Value:
        """The mean over height and width; (N, C, 1, 1) if they are kept, else (N, C)."""

    def turn(self, x: Value) -> Value:
        """Channels and height exchanged."""

    def dense(self, x: Value, kernel: Value, bias: Value) -> Value:
        """The classifier, whose kernel is IO."""


def walk(
    plan: p.Plan,
    ops: Operators,
    weights: Mapping[str, Value],
    sides: Mapping[str, Shape],
    images: Value,
) -> dict[str, Value]:
    """The value of every operation by its name, and of the images.

    Args:
        plan: A folded plan.
        ops: The library's operators.
        weights: Canonical name to value.
        sides: Operation to the shape of its output, where the sides of images are known.
        images: The network's input.
    """
    values = {p.INPUT: images}
    for op in plan.ops:
        values[op.name] = _value(op, [values[name] for name in op.inputs], ops, weights, sides)
    return values


def _value(
    op: p.Operation,
    inputs: list[Value],
    ops: Operators,
    weights: Mapping[str, Value],
    sides: Mapping[str, Shape],
) -> Value:
    x, own = inputs[0], [weights[q.name] for q in op.parameters]
    match op:
        case p.Conv():
            around = padding(op.extent, op, sides.get(op.inputs[0]))
            how = Sliding(op.groups, op.stride, op.dilation)
            y = ops.convolve(x, own[0], own[1], how, around)
            return ops.activate(op.activation, y, op.slope)
        case p.Activation():
            before = op.beta_at == "before"
            y = ops.activate(op.kind, _times(ops, x, op.beta if before else 1.0), op.slope)
            return _times(ops, y, op.gamma * (1.0 if before else op.beta))
        case p.Pool():
            around = padding(op.window, op, sides.get(op.inputs[0]))
            return ops.pool(x, op, around)
        case p.SqueezeExcite():
            w0, b0, w1, b1 = own
            y = ops.convolve(ops.mean(x, True), w0, b0, Sliding(), ([0, 0], [0, 0]))
            y = _times(ops, ops.activate(op.activation, y, op.slope), op.gamma)
            return _gated(op, x, ops.convolve(y, w1, b1, Sliding(), ([0, 0], [0, 0])), ops)
        case p.ECA():
            # The channels are the height of an image while the kernel slides over them.
            ends = [op.kernel // 2, 0]
            y = ops.convolve(ops.turn(ops.mean(x, True)), own[0], None, Sliding(), (ends, ends))
            return _gated(op, x, ops.turn(y), ops)
        case p.Residual():
            branch, shortcut, *gates = inputs
            factor = _times(ops, gates[0] if gates else branch, op.alpha)
            for gain in own:
                factor = ops.multiply(factor, gain)
            return ops.add(ops.multiply(branch, factor) if gates else factor, shortcut)
        case p.GlobalPool():
            return _times(ops, ops.mean(x, False), op.scale)
        case p.Dense():
            return ops.dense(x, own[0], own[1])
        case p.WSConv() | p.StochasticDepth() | p.Dropout():
            raise InputError(f"{op.name}: fold the plan first; this has no place in a file")
        case _:
            raise p.unknown_operation(op, "nfspec.export")


def _times(ops: Operators, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else ops.scale(x, factor)


def _gated(op: p.SqueezeExcite | p.ECA, x: Value, gate: Value, ops: Operators) -> Value:
    gate = _times(ops, ops.activate("sigmoid", gate, 0.0), op.gain)
    return gate if op.gate_only else ops.multiply(x, gate)
