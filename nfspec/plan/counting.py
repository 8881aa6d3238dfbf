"""Parameters, multiply-accumulates and activation bytes of a plan, whole and by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nfspec.arguments import instance, refuse, whole
from nfspec.errors import InputError
from nfspec.plan import (
    ECA,
    INPUT,
    Activation,
    Convolution,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Padding,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    unknown_operation,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Counts of the stem, a block or the head; `shape` is its last output's, without the batch."""

    name: str
    shape: Shape
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Count:
    """Counts of a network for one image.

    Attributes:
        size: Height and width of the image, px.
        parameters: Trainable scalars.
        macs: Multiply-accumulates of convs, channel attention and classifier, as the original's
            `count_flops` counts; activations, pooling and weight standardisation are left out.
        activation_bytes: Bytes of every operation's output in float32, which is what training keeps
            without recomputation.
        blocks: The same for the stem, each block and the head.
    """

    size: tuple[int, int]
    parameters: int
    macs: int
    activation_bytes: int
    blocks: tuple[Row, ...]


def divides(shape: Sequence[int], parts: int) -> bool:
    """Tell whether `--shard` keeps a parameter of this shape in so many parts: it is a kernel, and
    its output channels, the last axis, can be divided by them."""
    return len(shape) > 1 and shape[-1] % parts == 0


def divided_count(ops: Iterable[Operation], parts: int) -> int:
    """Trainable scalars of the kernels of operations that `--shard` keeps in so many parts."""
    return sum(p.size for op in ops for p in op.parameters if divides(p.shape, parts))


def parameter_count(plan: Plan, parts: int = 1) -> int:
    """Trainable scalars of a plan; with kernels in parts over devices, those that each has."""
    divided = divided_count(plan.ops, parts)
    return sum(p.size for p in plan.parameters.values()) - divided + divided // parts


def output_side(side: int, kernel: int, stride: int, padding: Padding) -> int:
    """Output height or width of a conv or pool, px; may be zero or less where nothing fits.

    Args:
        side: Height or width of the image, px.
        kernel: That of a window: of a conv, its `extent`.
        stride: px.
        padding: See the language.
    """
    if padding == "same":
        return -(-side // stride)
    pad = (stride - 1 + kernel - 1) // 2 if padding == "symmetric" else 0
    return (side + 2 * pad - kernel) // stride + 1


def shapes(plan: Plan, height: int, width: int) -> dict[str, Shape]:
    """Output shape of every operation, without the batch: (height, width, channels) or (features,).

    Raises:
        InputError: The image is so small that nothing is left of it.
    """
    outputs: dict[str, Shape] = {INPUT: (height, width, plan.channels)}
    for op in plan.ops:
        outputs[op.name] = _output_shape(op, outputs[op.inputs[0]], f"{height}x{width}")
    return outputs


def _output_shape(op: Operation, source: Shape, image: str) -> Shape:
    """Output shape of an operation; `source` is the shape of the first array it reads."""
    match op:
        case Convolution():
            return (*_sides(op, source, op.extent, image), op.out_channels)
        case Pool():
            return (*_sides(op, source, op.window, image), source[2])
        case GlobalPool() | SqueezeExcite(gate_only=True) | ECA(gate_only=True):
            return source[2:]
        case Dense():
            return (op.out_features,)
        case Activation() | SqueezeExcite() | ECA() | StochasticDepth() | Residual() | Dropout():
            return source
        case _:
            raise unknown_operation(op, "nfspec.plan.counting.shapes")


def _sides(op: Convolution | Pool, source: Shape, kernel: int, image: str) -> tuple[int, int]:
    height, width = (output_side(side, kernel, op.stride, op.padding) for side in source[:2])
    if height < 1 or width < 1:
        raise InputError(f"image of {image} px: nothing is left of it at {op.name}")
    return height, width


def _macs(op: Operation, shape: Shape) -> int:
    """Multiply-accumulates for one image; `shape` is that of the output."""
    match op:
        case Convolution():
            return shape[0] * shape[1] * op.out_channels * op.fan_in
        case SqueezeExcite():
            return 2 * op.channels * op.hidden
        case ECA():
            return op.channels * op.kernel
        case Dense():
            return op.in_features * op.out_features
        case Activation() | Pool() | StochasticDepth() | Residual() | GlobalPool() | Dropout():
            return 0
        case _:
            raise unknown_operation(op, "nfspec.count")


def count(plan: Plan, size: int | tuple[int, int] | None = None) -> Count:
    """Count parameters, MACs and activation bytes for one image.

    Args:
        plan: The network.
        size: Side of the image in px, or (height, width); the plan's test size if not given.

    Raises:
        InputError: The image is so small that nothing is left of it, or an argument has another
            type than those above.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    if size is None:
        size = plan.test_size
    both = size if isinstance(size, tuple) else (size, size)
    if len(both) != 2:
        raise refuse("size", "a side in px, or (height, width)", size)
    height, width = (whole("size", side, 1, "px") for side in both)
    outputs = shapes(plan, height, width)
    rows: dict[str, Row] = {}
    for op in plan.ops:
        name, shape = plan.section(op), outputs[op.name]
        old = rows.get(name, Row(name, shape, 0, 0, 0))
        rows[name] = Row(
            name,
            shape,
            old.parameters + sum(p.size for p in op.parameters),
            old.macs + _macs(op, shape),
            old.activation_bytes + 4 * math.prod(shape),
        )
    sections = tuple(rows.values())
    return Count(
        (height, width),
        parameters=sum(row.parameters for row in sections),
        macs=sum(row.macs for row in sections),
        activation_bytes=sum(row.activation_bytes for row in sections),
        blocks=sections,
    )
