"""The form of weights and padding in files: convs OIHW, windows padded at two ends of each side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.plan.counting import Shape
from nfspec.reference.operations import pads

Weight = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """The form that a parameter has in a file: its axes in another order, then its shape."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def stored(self, value: Weight) -> Weight:
        """A parameter of the plan as it is in the file."""
        return np.array(value.transpose(self.axes).reshape(self.shape), order="C")

    def restored(self, value: Weight, shape: tuple[int, ...]) -> Weight:
        """A parameter of the plan, of its shape, from what is in the file."""
        moved = value.reshape([shape[axis] for axis in self.axes])
        back = [self.axes.index(axis) for axis in range(len(shape))]
        return np.array(moved.transpose(back), order="C")


def places(plan: p.Plan) -> dict[str, Place]:
    """Canonical name to the form of a parameter in a file: convs OIHW, those of attention, too, and
    the classifier IO."""
    found: dict[str, Place] = {}
    for op in plan.ops:
        for q in op.parameters:
            shape = q.shape
            axes = tuple(range(len(shape)))
            if isinstance(op, p.Convolution) and len(shape) == 4:
                axes = (3, 2, 0, 1)
                shape = tuple(shape[axis] for axis in axes)
            elif isinstance(op, p.SqueezeExcite) and len(shape) == 2:
                axes, shape = (1, 0), (shape[1], shape[0], 1, 1)
            elif isinstance(op, p.ECA):
                shape = (1, 1, *shape, 1)
            found[q.name] = Place(axes, shape)
    return found


def padding(
    kernel: int, op: p.Convolution | p.Pool, sides: Shape | None
) -> tuple[list[int], list[int]] | None:
    """Padding before and after, height and width; None where it depends on the sides.

    Args:
        kernel: Side of the window; of a conv, its extent.
        op: The conv or pool.
        sides: Height and width of the image, where they are known.
    """
    # ONNX Runtime takes no rule for the padding of dilated convs.
    apart = isinstance(op, p.Pool) or op.dilation > 1
    if op.padding != "same" or kernel == 1 or (op.stride == 1 and apart):
        rule = "valid" if op.padding == "same" and kernel == 1 else op.padding
        around = [pads(1, kernel, op.stride, rule)] * 2  # of any side
    elif sides is None:
        return None
    else:
        around = [pads(side, kernel, op.stride, op.padding) for side in sides[:2]]
    return [before for before, _ in around], [after for _, after in around]


def narrow(value: Weight, dtype: str) -> Weight:
    """float32 in the dtype of a file's weights, little-endian; bfloat16 as its bits."""
    if dtype == "bf16":
        bits = np.asarray(value, np.float32).view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)  # to nearest, ties to even
        return np.asarray((bits + np.uint32(0x7FFF) + even) >> np.uint32(16), "<u2")
    return np.asarray(value, "<f2" if dtype == "f16" else "<f4")


def wide(bits: Weight) -> Weight:
    """float32 of bfloat16's bits."""
    return np.asarray(bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
