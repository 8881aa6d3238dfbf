"""Parameters, multiply-accumulates and activation bytes of a plan, whole and by block."""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.arguments import instance, refuse, whole
from nfspec.errors import InputError
from nfspec.plan import (
    ECA,
    INPUT,
    Convolution,
    Dense,
    GlobalPool,
    Op,
    Padding,
    Plan,
    Pool,
    SqueezeExcite,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Counts of one section. `shape` is that of its last output, without the batch."""

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


def parameter_count(plan: Plan) -> int:
    """Trainable scalars of a plan."""
    return sum(parameter.size for parameter in plan.parameters.values())


def output_side(side: int, kernel: int, stride: int, padding: Padding) -> int:
    """Output height or width of a conv or pool, px; may be zero or less where nothing fits."""
    if padding == "same":
        return -(-side // stride)
    pad = (stride - 1 + kernel - 1) // 2 if padding == "symmetric" else 0
    return (side + 2 * pad - kernel) // stride + 1


def shapes(plan: Plan, height: int, width: int) -> dict[str, Shape]:
    """Output shape of every operation, without the batch: (height, width, channels) or (features,).

    Raises:
        InputError: The image is so small that nothing is left of it.
    """
    found: dict[str, Shape] = {INPUT: (height, width, plan.channels)}
    for op in plan.ops:
        shape = found[op.inputs[0]]
        if isinstance(op, Convolution | Pool):
            kernel = op.kernel if isinstance(op, Convolution) else op.window
            h, w = (output_side(side, kernel, op.stride, op.padding) for side in shape[:2])
            if h < 1 or w < 1:
                raise InputError(
                    f"image of {height}x{width} px: nothing is left of it at {op.name}"
                )
            shape = (h, w, op.out_channels if isinstance(op, Convolution) else shape[2])
        elif isinstance(op, GlobalPool) or getattr(op, "gate_only", False):
            shape = shape[2:]
        elif isinstance(op, Dense):
            shape = (op.out_features,)
        found[op.name] = shape
    return found


def _macs(op: Op, shape: Shape) -> int:
    if isinstance(op, Convolution):
        return shape[0] * shape[1] * op.out_channels * op.fan_in
    if isinstance(op, SqueezeExcite):
        return 2 * op.channels * op.hidden
    if isinstance(op, ECA):
        return op.channels * op.kernel
    return op.in_features * op.out_features if isinstance(op, Dense) else 0


def count(plan: Plan, size: int | tuple[int, int] | None = None) -> Count:
    """Count parameters, MACs and activation bytes for one image.

    Args:
        plan: The network.
        size: Side of the image in px, or (height, width); the plan's test size if not given.

    Raises:
        InputError: The image is so small that nothing is left of it, or an argument is not what is
            said here.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    if size is None:
        size = plan.test_size
    both = size if isinstance(size, tuple) else (size, size)
    if len(both) != 2:
        raise refuse("size", "a side in px, or (height, width)", size)
    height, width = (whole("size", side, 1, "px") for side in both)
    found = shapes(plan, height, width)
    rows: dict[str, Row] = {}
    for op in plan.ops:
        name, shape = plan.section(op), found[op.name]
        old = rows.get(name, Row(name, shape, 0, 0, 0))
        elements = 1
        for n in shape:
            elements *= n
        rows[name] = Row(
            name,
            shape,
            old.parameters + sum(p.size for p in op.parameters),
            old.macs + _macs(op, shape),
            old.activation_bytes + 4 * elements,
        )
    sections = tuple(rows.values())
    return Count(
        (height, width),
        parameters=sum(row.parameters for row in sections),
        macs=sum(row.macs for row in sections),
        activation_bytes=sum(row.activation_bytes for row in sections),
        blocks=sections,
    )
