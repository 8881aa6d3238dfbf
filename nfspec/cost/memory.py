"""Memory that training takes on a device, and the number of images that fit into it at a time."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace

from nfspec.arguments import instance, one_of, whole
from nfspec.cost.rows import Passes, fullest
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
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    unknown_operation,
)
from nfspec.plan.counting import Shape, parameter_count, shapes
from nfspec.plan.remat import DEPTHS

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of an activation
USABLE = 0.91
"""Share of a device's memory that `training_bytes` may take; runtimes and gaps take the rest.

With it, the batches at which timm's networks trained on 24 GB fit, and those that did not fit there
do not (tests/cost/test_roofline.py).
"""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while it trains; float32 but for the last three.

    On TPUs gradients, kernels and activations are those that are there at the fullest moment. Where
    kernels are in parts over devices, so is what is kept of them, from parameters to perturbed;
    gradients and kernels in use are counted whole, as programs for TPUs have them. On
    PyTorch gradients are in parts, too, but for those of a block at a time.

    Attributes:
        parameters, gradients, momentum: One array for each parameter.
        average: The same, where the recipe has a moving average.
        accumulated: The same, where micro-batches are accumulated.
        perturbed: The same, where the recipe has SAM.
        kernels: Kernels as they are used, in the precision of the activations.
        activations: Arrays that the forward pass leaves for the backward pass.
        workspace: Memory that the passes need beyond all the above at their fullest.
    """

    parameters: int
    gradients: int
    momentum: int
    average: int
    accumulated: int
    perturbed: int
    kernels: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def width_of(precision: str) -> int:
    """Bytes of an activation.

    Raises:
        InputError: There is no such precision.
    """
    return WIDTHS[one_of("precision", precision, tuple(WIDTHS))]


def training_shapes(plan: Plan, size: int | None) -> dict[str, Shape]:
    """Output shape of each operation for an image of a side in px, or of the training size."""
    instance("plan", plan, Plan, "nfspec.resolve")
    side = plan.train_size if size is None else whole("size", size, 1, "px")
    return shapes(plan, side, side)


def _reads_its_input_again(op: Operation) -> bool:
    """Tell whether the backward pass of an operation reads the operation's input.

    It does where the operation is not linear, or has parameters.
    """
    match op:
        case Convolution() | Activation() | SqueezeExcite() | ECA() | Dense():
            return True
        case Pool():
            return op.kind == "max"
        case Residual():
            return op.skip_gain
        case StochasticDepth() | GlobalPool() | Dropout():
            return False
        case _:
            raise unknown_operation(op, "nfspec.cost.memory")


def _activations(plan: Plan, outputs: dict[str, Shape], remat: str) -> tuple[int, int]:
    """Count the numbers of one image that are kept for the backward pass, and the most at a time.

    While an operation runs there are the numbers kept so far, its inputs and its output, or in the
    backward pass the gradients of these. What is computed again keeps what it reads, and is there
    as a whole in its own backward pass.
    """
    if DEPTHS[remat]:
        return _computed_again(plan, outputs, DEPTHS[remat])
    kept = {op.inputs[0] for op in plan.ops if _reads_its_input_again(op)}
    have = fullest = math.prod(outputs[INPUT])
    for op in plan.ops:
        out = math.prod(outputs[op.name])
        have += out if op.name in kept else 0
        fullest = max(fullest, have + out + sum(math.prod(outputs[name]) for name in op.inputs))
    return have, fullest


def _computed_again(plan: Plan, outputs: dict[str, Shape], depth: int) -> tuple[int, int]:
    """`_activations` where the stem and what the first words of a name say are computed again."""
    parts: dict[str, list[Operation]] = {}
    for op in plan.ops:
        section = plan.section(op)
        again = section == "stem" or section.startswith("stages.")
        parts.setdefault(".".join(section.split(".")[:depth]) if again else "", []).append(op)
    head = parts.pop("", [])
    kept = {name for ops in parts.values() for name in _read_from_before(ops)}
    kept |= {op.inputs[0] for op in head if _reads_its_input_again(op)}
    have = sum(math.prod(outputs[name]) for name in kept)
    inside = {**outputs, INPUT: (0,)}  # the image is among what is kept
    most = max(
        _activations(replace(plan, ops=tuple(ops)), inside, "none")[1]
        for ops in [*parts.values(), head]
    )
    return have, have + most


def _read_from_before(ops: list[Operation]) -> set[str]:
    """Names of what operations read of others."""
    own = {op.name for op in ops}
    return {name for op in ops for name in op.inputs if name not in own}


def training_memory(
    plan: Plan,
    batch: int,
    size: int | None = None,
    precision: str = "float32",
    accumulate: bool = False,
    lanes: int = 0,
    parts: int = 1,
) -> Memory:
    """Bytes on one device while it trains, part by part.

    The recipe's `remat` says what is computed again. The memory that frameworks take for themselves
    is not counted: see `USABLE`.

    Args:
        plan: The network; its recipe says whether there are a moving average and SAM.
        batch: Images on the device at a time; with accumulation, of one micro-batch.
        size: Their side in px; the plan's training size if not given.
        precision: Dtype of activations: float32, bfloat16 or float16.
        accumulate: True if gradients of several micro-batches are added up.
        lanes: The accelerator's, as `Accelerator` has them: of a TPU, whose compiler keeps less.
        parts: Number of devices that kernels are in parts over (`--shard`); 1: they are whole.

    Raises:
        InputError: The image is too small, or there is no such precision.
    """
    width, outputs = width_of(precision), training_shapes(plan, size)
    batch = whole("batch", batch, 1, "images")
    each, recipe = 4 * parameter_count(plan, whole("parts", parts, 1)), plan.recipe
    remat = recipe.remat if recipe else "none"
    if lanes:
        passes = fullest(plan, outputs, batch, width, DEPTHS[remat], lanes)
    else:
        activations, most = _activations(plan, outputs, remat)
        kernels = sum(p.size for p in plan.parameters.values() if p.role in ("kernel", "head"))
        passes = Passes(
            gradients=4 * parameter_count(plan),
            kernels=width * kernels,
            activations=width * batch * activations,
            workspace=width * batch * (most - activations),
        )
    return Memory(
        parameters=each,
        momentum=each,
        average=each if recipe and recipe.ema_decay else 0,
        accumulated=each if accumulate else 0,
        perturbed=each if recipe and recipe.sam_rho else 0,
        **vars(passes),
    )


def training_bytes(
    plan: Plan,
    batch: int,
    size: int | None = None,
    precision: str = "float32",
    accumulate: bool = False,
    lanes: int = 0,
    parts: int = 1,
) -> int:
    """`training_memory`, added up."""
    return training_memory(plan, batch, size, precision, accumulate, lanes, parts).total


def largest_batch(
    plan: Plan,
    memory: int,
    size: int | None = None,
    precision: str = "float32",
    accumulate: bool = False,
    lanes: int = 0,
    parts: int = 1,
) -> int:
    """The most images that train at a time in a device's memory of so many bytes; maybe 0."""

    def too_large(batch: int) -> bool:
        needed = training_bytes(plan, batch, size, precision, accumulate, lanes, parts)
        return needed > USABLE * memory

    beyond = 1
    while not too_large(beyond):
        beyond *= 2
    return bisect.bisect_left(range(beyond), True, 1, key=too_large) - 1


def accumulation(
    plan: Plan,
    batch: int,
    memory: int,
    size: int | None = None,
    precision: str = "float32",
    lanes: int = 0,
    parts: int = 1,
    accumulate: bool = False,
) -> int:
    """The fewest micro-batches, all of one size, in which a device's images fit into its memory.

    With `accumulate` the images are a micro-batch already.

    Raises:
        InputError: Not even one image fits.
    """
    if batch <= largest_batch(plan, memory, size, precision, accumulate, lanes, parts):
        return 1
    most = largest_batch(plan, memory, size, precision, True, lanes, parts)
    for count in range(2, batch + 1):
        if batch % count == 0 and batch // count <= most:
            return count
    needed = training_bytes(plan, 1, size, precision, batch > 1, lanes, parts)
    raise InputError(
        f"{plan.name}: one image of {size or plan.train_size} px needs {needed / 1e9:.1f} GB, and "
        f"a device has {USABLE * memory / 1e9:.1f} GB for it; choose a device with more memory, "
        "or a smaller size"
    )
