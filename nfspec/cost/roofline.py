"""A model of the seconds that a training step takes: operations multiply, and move bytes.

Arithmetic over the Plan, with no framework. Each phase of an operation takes as long as its
multiplications at the device's peak or its bytes at the device's bandwidth, whichever is longer (a
roofline), and everything takes 1/efficiency of that. The efficiency is the one free number, the
geometric mean over steps that were measured on the device (`accelerators.py`). Steps of 28 networks
and settings that it was not fitted to come out within 1.2 times (tests/cost/test_roofline.py); half
of them were in view when the tile of GPUs was chosen.

Multiplications are those of a matrix product rounded up to the device's tiles: a conv is, for each
group, (pixels, fan-in) by (fan-in, channels). Every operation reads its inputs from memory and
writes its output, though compilers fuse some; parameters, their gradients and the optimizer's
buffers are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from nfspec.arguments import flag, instance, number, whole
from nfspec.cost.accelerators import ACCELERATORS, Accelerator, Timing, named
from nfspec.cost.exchange import exchange_seconds
from nfspec.cost.memory import Memory, accumulation, training_memory, training_shapes, width_of
from nfspec.errors import InputError
from nfspec.language.loader import load
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
    WSConv,
    unknown_operation,
)
from nfspec.plan.counting import Shape, divides, parameter_count
from nfspec.plan.resolver import resolve

KINDS = ("convs", "activations", "attention", "weights", "other")


@dataclass(frozen=True)
class Product:
    """A product of matrices, (rows, depth) by (depth, columns), once for each group.

    Where `split`, its sum is divided among a device's units, as that of a kernel's gradient is.
    """

    rows: int
    columns: int
    depth: int
    groups: int = 1
    split: bool = False

    def padded_flops(self, accelerator: Accelerator) -> int:
        """Multiplications and additions, every side and the number of tiles rounded up."""
        high, wide, deep = accelerator.tile
        tiles = self.groups * -(-self.rows // high) * -(-self.columns // wide)
        if not self.split:
            tiles = -(-tiles // accelerator.units) * accelerator.units
        return 2 * tiles * high * wide * -(-self.depth // deep) * deep


@dataclass(frozen=True)
class Work:
    """A phase of an operation: what it multiplies and adds, and the bytes it moves.

    `op` is the operation's name, `kind` one of KINDS, in which "weights" is the standardisation of
    kernels.
    """

    op: str
    kind: str
    flops: int
    bytes: int
    product: Product | None = None

    def seconds(self, accelerator: Accelerator, precision: str) -> float:
        """Seconds on a device that reaches its peaks."""
        peak = accelerator.flops if precision == "float32" else accelerator.narrow_flops
        flops = self.product.padded_flops(accelerator) if self.product else self.flops
        return max(flops / peak, self.bytes / accelerator.bandwidth)


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes:
        batch: Images, on all devices.
        accumulation: Micro-batches on each device.
        parts: Seconds of the passes, by KINDS; of accumulation; of the update: clipping, optimizer
            and moving average; of all-reduce: the sum of the gradients over devices, which begins
            when they are all there; of all-gather: kernels in parts, which each device needs whole.
        flops: Multiplications and additions on one device, not rounded up.
        memory: Bytes on one device.
    """

    batch: int
    accumulation: int
    parts: dict[str, float]
    flops: int
    memory: Memory

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Calibration:
    """The share of the roofline that a device reaches, and the error of that figure.

    Attributes:
        efficiency: Seconds at the peaks over seconds.
        like: The accelerator whose measured steps it is from.
        ratios: Seconds by this model over measured ones. Where the accelerator was measured, of
            each of its steps by the efficiency of the others. Else of each calibrated accelerator's
            steps by the efficiency of every other one, as here another's is taken.
    """

    efficiency: float
    like: str
    ratios: tuple[float, ...]

    @property
    def typical(self) -> float:
        """Root mean square of the errors, as a ratio of 1 or more."""
        logs = [math.log(ratio) for ratio in self.ratios]
        return math.exp(math.sqrt(sum(x * x for x in logs) / len(logs)))

    @property
    def worst(self) -> float:
        return max(max(ratio, 1 / ratio) for ratio in self.ratios)


def _conv(
    op: Convolution, outputs: dict[str, Shape], batch: int, width: int, parts: int
) -> Iterator[Work]:
    """Forward, gradient of the input (not of the image), gradient of the kernel."""
    source, out = outputs[op.inputs[0]], outputs[op.name]
    pixels, inner = batch * out[0] * out[1], op.in_channels // op.groups
    channels = op.out_channels // op.groups
    kernel = op.fan_in * op.out_channels
    flops = 2 * pixels * kernel
    moved = width * (batch * (math.prod(source) + math.prod(out)) + kernel)
    yield Work(op.name, "convs", flops, moved, Product(pixels, channels, op.fan_in, op.groups))
    if op.inputs[0] != INPUT:
        rows = batch * source[0] * source[1]
        depth = -(-(op.kernel**2 * channels) // op.stride**2)  # the taps that meet a pixel
        yield Work(op.name, "convs", flops, moved, Product(rows, inner, depth, op.groups))
    gradient = Product(op.fan_in, channels, pixels, op.groups, split=True)
    yield Work(op.name, "convs", flops, moved, gradient)
    if (
        isinstance(op, WSConv) and op.eps_rule != "none"
    ):  # statistics, scaling; then the gradient through both
        own = kernel // parts if divides((op.fan_in, op.out_channels), parts) else kernel
        yield Work(op.name, "weights", 0, (8 + width) * own)
        yield Work(op.name, "weights", 0, (8 + width) * own)


def _dense(name: str, kind: str, batch: int, inner: int, outer: int, width: int) -> Iterator[Work]:
    flops = 2 * batch * inner * outer
    moved = width * (batch * (inner + outer) + inner * outer)
    yield Work(name, kind, flops, moved, Product(batch, outer, inner))
    yield Work(name, kind, flops, moved, Product(batch, inner, outer))
    yield Work(name, kind, flops, moved, Product(inner, outer, batch, split=True))


def _attention(
    op: SqueezeExcite | ECA, read: int, written: int, batch: int, width: int
) -> Iterator[Work]:
    """The mean and the product with the gate, then the layers that make the gate.

    In the backward pass the gate's gradient is a sum over x and the output's gradient, which is
    read again for the gradient of x.
    """
    yield Work(op.name, "attention", 0, 2 * read + written)
    yield Work(op.name, "attention", 0, 2 * read + 2 * written)
    if isinstance(op, SqueezeExcite):
        for inner, outer in ((op.channels, op.hidden), (op.hidden, op.channels)):
            yield from _dense(op.name, "attention", batch, inner, outer, width)
    else:
        for _ in range(3):
            yield Work(op.name, "attention", 2 * batch * op.channels * op.kernel, 0)


def _works(
    op: Operation, outputs: dict[str, Shape], batch: int, width: int, parts: int
) -> Iterator[Work]:
    read = batch * width * sum(math.prod(outputs[name]) for name in op.inputs)
    written = batch * width * math.prod(outputs[op.name])
    match op:
        case Convolution():
            yield from _conv(op, outputs, batch, width, parts)
        case Dense():
            yield from _dense(op.name, "other", batch, op.in_features, op.out_features, width)
        case SqueezeExcite() | ECA():
            yield from _attention(op, read, written, batch, width)
        case Activation():  # backward, the input is read again for the derivative
            yield Work(op.name, "activations", 0, read + written)
            yield Work(op.name, "activations", 0, read + written + read)
        case Pool() | StochasticDepth() | Residual() | GlobalPool() | Dropout():
            yield Work(op.name, "other", 0, read + written)
            yield Work(op.name, "other", 0, read + written)
        case _:
            raise unknown_operation(op, "nfspec.cost.roofline")


def works(
    plan: Plan, batch: int, size: int | None = None, precision: str = "float32", parts: int = 1
) -> list[Work]:
    """Forward and backward pass of every operation, and the forward pass again where the recipe
    computes it again (`remat`), without the optimizer.

    Args:
        plan: The network.
        batch: Images.
        size: Their side in px; the plan's training size if not given.
        precision: Dtype of activations and products: float32, bfloat16 or float16.
        parts: Number of devices that kernels are in parts over, each of which standardises its own.

    Raises:
        InputError: The image is too small, or there is no such precision.
    """
    width, outputs = width_of(precision), training_shapes(plan, size)
    again = plan.recipe is not None and plan.recipe.remat != "none"
    found = []
    for op in plan.ops:
        own = list(_works(op, outputs, batch, width, parts))
        found += [*own, *own[:1]] if again and plan.section(op) != "head" else own
    return found


def update_bytes(plan: Plan, parts: int = 1) -> int:
    """Bytes that a step moves after the backward pass; with kernels in parts, those of a device.

    Clipping reads weights and gradients; SGD reads weights, gradients and momentum and writes
    weights and momentum; the average is read and written; SAM moves the weights there and back.
    """
    recipe, each = plan.recipe, 5
    each += 2 if plan.agc.enabled else 0
    each += 2 if recipe and recipe.ema_decay else 0
    each += 4 if recipe and recipe.sam_rho else 0
    return 4 * each * parameter_count(plan, parts)


def _peak_seconds(
    plan: Plan,
    accelerator: Accelerator,
    batch: int,
    size: int | None,
    precision: str,
    micro: int,
    parts: int = 1,
) -> dict[str, float]:
    """Seconds of each part of a step but what devices exchange, on a device that reaches its peaks,
    with so many micro-batches, and kernels in parts over so many devices."""
    seconds = dict.fromkeys((*KINDS, "accumulation", "update"), 0.0)
    for work in works(plan, batch // micro, size, precision, parts):
        seconds[work.kind] += micro * work.seconds(accelerator, precision)
    if micro > 1:  # each gradient and its sum are read, the sum is written
        seconds["accumulation"] = micro * 12 * parameter_count(plan, parts) / accelerator.bandwidth
    seconds["update"] = update_bytes(plan, parts) / accelerator.bandwidth
    return seconds


@cache
def _network(variant: str) -> Plan:
    return resolve(load(variant))


@cache
def _measured(name: str) -> tuple[tuple[float, float], ...]:
    """For each timing, seconds at the peaks, and measured ones without the sum over devices."""
    given = named(name)
    return tuple(_peak_and_measured(given, timing) for timing in given.timings)


def _peak_and_measured(accelerator: Accelerator, timing: Timing) -> tuple[float, float]:
    plan, precision = _network(timing.variant), accelerator.precision
    micro = 1
    if accelerator.splits:
        micro = accumulation(
            plan, timing.batch, accelerator.memory, timing.size, precision, accelerator.lanes
        )
    peak = _peak_seconds(plan, accelerator, timing.batch, timing.size, precision, micro)
    exchange = exchange_seconds(plan, accelerator, accelerator.devices, precision)
    return sum(peak.values()), timing.seconds - micro * sum(exchange.values())


def _efficiency(measured: Iterable[tuple[float, float]]) -> float:
    """Least squares in the logarithm of the seconds."""
    logs = [math.log(peak / seconds) for peak, seconds in measured]
    return math.exp(sum(logs) / len(logs))


def _ratios(name: str, efficiencies: Iterable[float]) -> tuple[float, ...]:
    """Modelled over measured seconds of each timing, each with its efficiency."""
    rows = zip(named(name).timings, _measured(name), efficiencies, strict=True)
    return tuple(1 + (peak / e - seconds) / timing.seconds for timing, (peak, seconds), e in rows)


@cache
def calibrate(name: str) -> Calibration:
    """The efficiency of an accelerator, from its timings or from those of the one it is like.

    Raises:
        InputError: There is no accelerator of that name.
    """
    given = named(name)
    if given.timings:
        measured = _measured(name)
        others = [measured[:i] + measured[i + 1 :] for i in range(len(measured))]
        return Calibration(_efficiency(measured), name, _ratios(name, map(_efficiency, others)))
    calibrated = [other for other, each in ACCELERATORS.items() if each.timings]
    efficiencies = {other: _efficiency(_measured(other)) for other in calibrated}
    transferred = tuple(
        ratio
        for each in calibrated
        for other, efficiency in efficiencies.items()
        if other != each
        for ratio in _ratios(each, [efficiency] * len(named(each).timings))
    )
    return Calibration(efficiencies[given.like], given.like, transferred)


def step(
    plan: Plan,
    accelerator: Accelerator,
    batch: int,
    devices: int = 1,
    size: int | None = None,
    precision: str = "float32",
    efficiency: float | None = None,
    shard: bool = False,
) -> Step:
    """One training step by the model.

    SAM's ascent, where the recipe has one, adds its share of the images, and what devices exchange
    for its gradients, as on JAX. They exchange it for each micro-batch.

    Args:
        plan: The network.
        accelerator: Kind of each device.
        batch: Images, on all devices.
        devices: Number of devices that share them.
        size: Side of the images in px; the plan's training size if not given.
        precision: Dtype of the passes: float32, bfloat16 or float16.
        efficiency: Share of the roofline that is reached; `calibrate`'s if not given.
        shard: Keep kernels, and what the optimizer keeps of them, in parts over the devices.

    Raises:
        InputError: The batch is not divisible, not even one image fits, the image is too small,
            the device has no links to others, or there is no such precision.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    batch, devices = whole("batch", batch, 1, "images"), whole("devices", devices, 1)
    if efficiency is not None:
        number("efficiency", efficiency, 0.0, 1.0, above=True)
    if batch % devices:
        lower = batch - batch % devices
        near = " or ".join(str(n) for n in (lower, lower + devices) if n)
        raise InputError(
            f"batch: {batch} images do not divide among {devices} devices; take {near}"
        )
    if devices > 1 and not accelerator.link:
        raise InputError(f"devices: the links between {accelerator.name}s are not known; take 1")
    images = batch // devices
    lanes, parts = accelerator.lanes, devices if flag("shard", shard) else 1
    micro = accumulation(plan, images, accelerator.memory, size, precision, lanes, parts)
    recipe = plan.recipe
    ascent = 1 + recipe.sam_fraction if recipe and recipe.sam_rho else 1.0
    efficiency = calibrate(accelerator.name).efficiency if efficiency is None else efficiency
    peak = _peak_seconds(plan, accelerator, images, size, precision, micro, parts)
    seconds = {
        part: at_peak / efficiency * (1.0 if part == "update" else ascent)
        for part, at_peak in peak.items()
    }
    times = micro if ascent == 1.0 else 2 * micro
    exchange = exchange_seconds(plan, accelerator, devices, precision, shard)
    seconds |= {name: times * once for name, once in exchange.items()}
    flops = sum(work.flops for work in works(plan, images, size, precision))
    return Step(
        batch=batch,
        accumulation=micro,
        parts=seconds,
        flops=round(ascent * flops),
        memory=training_memory(plan, images // micro, size, precision, micro > 1, lanes, parts),
    )
