"""Memory of a training step in the programs that XLA makes for TPUs, found by compiling some.

Compiled steps keep for the backward pass the outputs of convs and pools, and the inputs of convs
whose kernel has more than one pixel; activations, sums and gates are computed again where they are
read, and so are the kernels of what `recipe.remat` names. An array lies in rows of 128 numbers, of
channels or of images, eight rows to a tile, and is padded to them; a conv in groups narrower than a
row has rows of images. Gradients of parameters are there from the backward pass of their operation
on. docs/accelerators.md has the programs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nfspec.plan import INPUT, Convolution, Operation, Plan, Pool
from nfspec.plan.counting import Shape

LANES = 128  # numbers in a row of a TPU
TILE = 8  # rows of a tile


@dataclass(frozen=True)
class Passes:
    """Bytes of the passes at their fullest moment.

    Attributes:
        activations: Arrays that the forward pass left, and are still needed.
        kernels: Kernels as they are used, which are still needed.
        gradients: Gradients of parameters that are there by then, float32.
        workspace: Gradients of images.
    """

    activations: int
    kernels: int
    gradients: int
    workspace: int

    @property
    def total(self) -> int:
        return self.activations + self.kernels + self.gradients + self.workspace


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _bytes(shape: Shape, batch: int, width: int, lanes: int, narrow: bool = False) -> int:
    """Bytes of the images of a batch, padded; `narrow`: as a conv in narrow groups keeps them."""
    *sides, channels = shape
    pixels, side = math.prod(sides), sides[-1] if sides else 1
    of_images = pixels * _up(batch, lanes) * _up(channels, TILE)
    # The eight rows of a tile are of images, or of pixels beside each other.
    eight = min(pixels * _up(batch, TILE), pixels // side * _up(side, TILE) * batch)
    of_channels = eight * _up(channels, lanes)
    return width * (of_images if narrow else min(of_images, of_channels))


def _kernels(op: Operation) -> int:
    return sum(p.size for p in op.parameters if p.role in ("kernel", "head"))


def _is_narrow(op: Convolution, lanes: int) -> bool:
    return op.groups > 1 and op.in_channels // op.groups < lanes


def _kept(ops: Iterable[Operation], lanes: int) -> dict[str, bool]:
    """Names of the arrays that are left to the backward pass, and whether each is narrow."""
    kept: dict[str, bool] = {}
    for op in ops:
        if isinstance(op, Convolution):
            narrow = _is_narrow(op, lanes)
            kept[op.name] = narrow
            if op.kernel > 1:
                kept[op.inputs[0]] = kept.get(op.inputs[0], False) or narrow
        elif isinstance(op, Pool):
            kept[op.name] = False
    return kept


def _parts(plan: Plan, depth: int) -> list[tuple[Operation, ...]]:
    """The parts of a network that are computed again, each as a whole; all in one where none is."""
    if not depth:
        return [plan.ops]
    parts: dict[str, list[Operation]] = {}
    for op in plan.ops:
        parts.setdefault(".".join(plan.section(op).split(".")[:depth]), []).append(op)
    return [tuple(ops) for ops in parts.values()]


def fullest(
    plan: Plan, outputs: dict[str, Shape], batch: int, width: int, depth: int, lanes: int
) -> Passes:
    """Walk through the backward pass, and return its fullest moment.

    Args:
        plan: The network.
        outputs: Output shape of each operation, without the batch.
        batch: Images.
        width: Bytes of an activation.
        depth: As many words of an operation's name say which part of the network is computed again,
            as `nfspec.plan.remat.DEPTHS` has them; 0: none is.
        lanes: Numbers in a row of memory.
    """

    def size(name: str, narrow: bool = False) -> int:
        return _bytes(outputs[name], batch, width, lanes, narrow)

    parts = _parts(plan, depth)
    before = [{name for op in ops for name in op.inputs} - {op.name for op in ops} for ops in parts]
    gradients, best = 0, Passes(0, 0, 0, 0)
    for n, ops in reversed([*enumerate(parts)]):
        given = sum(map(size, set().union(*before[: n + 1])))
        inside = {name: narrow for name, narrow in _kept(ops, lanes).items() if name != INPUT}
        left = sum(size(*each) for each in inside.items() if each[0] not in before[n])
        kernels = width * sum(map(_kernels, ops))
        for op in reversed(ops):
            passing = size(op.name)
            moment = Passes(given + left, kernels, gradients, passing)
            best = max(best, moment, key=lambda each: each.total)
            gradients += 4 * sum(p.size for p in op.parameters)
            kernels -= width * _kernels(op)
            left -= size(op.name, inside[op.name]) if op.name in inside else 0
    return best
