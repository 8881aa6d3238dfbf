"""The text of `nfspec cost`: a network's costs, and the model against measured steps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from nfspec.console import WIDTH, bold, table
from nfspec.cost.accelerators import ACCELERATORS, GIB, Accelerator
from nfspec.cost.decoding import MEASURED_ON, decoding_seconds
from nfspec.cost.roofline import Calibration, Step
from nfspec.plan import Plan
from nfspec.training.runs import Run

MEMORY = {  # the printed name of each field of Memory
    "parameters": "parameters",
    "gradients": "gradients",
    "momentum": "momentum",
    "average": "average",
    "accumulated": "accumulated gradients",
    "perturbed": "SAM's weights",
    "kernels": "kernels",
    "activations": "activations",
    "workspace": "workspace",
}


@dataclass(frozen=True)
class Cost:
    """The costs of training a network.

    Attributes:
        parts: Number of devices that kernels are in parts over; 1: they are whole.
        run: None where its spec has no recipe.
        remat: If the images on a device do not fit, the least that has to be computed again for
            them to fit: `block` or `stage`; empty if that is not enough.
    """

    plan: Plan
    accelerator: Accelerator
    devices: int
    parts: int
    size: int
    precision: str
    step: Step
    largest: int
    calibration: Calibration
    run: Run | None
    remat: str

    @property
    def images(self) -> int:
        return self.step.batch // self.devices

    @property
    def decoding(self) -> float:
        """Images a second that a core reads."""
        recipe = self.run.recipe if self.run else None
        return 1.0 / decoding_seconds(recipe, self.size)

    @property
    def cores(self) -> int:
        """Cores that read images as fast as a device trains."""
        return math.ceil(self.images / self.step.seconds / self.decoding)

    @property
    def hours(self) -> float | None:
        return self.run.steps * self.step.seconds / 3600 if self.run else None


def _seconds(seconds: float) -> str:
    """Three digits, in the unit that suits: 73.3 ms, 1.4 s, 2.1 hours, 35 days."""
    for unit, length, least in (
        ("days", 86_400, 2 * 86_400),
        ("hours", 3600, 3600),
        ("min", 60, 60),
        ("s", 1, 1),
    ):
        if seconds >= least:
            return f"{_three(seconds / length)} {unit}"
    return f"{_three(seconds * 1e3)} ms"


def _three(number: float) -> str:
    """Three digits, but every one before the point."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"


def _gb(number: float) -> str:
    return _three(number / 1e9)


def _time(cost: Cost) -> str:
    seconds, typical, worst = cost.step.seconds, cost.calibration.typical, cost.calibration.worst
    near = f"{_seconds(seconds / typical)} to {_seconds(seconds * typical)}"
    far = f"{_seconds(seconds / worst)} to {_seconds(seconds * worst)}"
    return f"{_seconds(seconds)}; probably {near}, at worst {far}"


def _speed(cost: Cost) -> str:
    one = cost.images / cost.step.seconds
    all_of_them = f", {one * cost.devices:,.0f} on all" if cost.devices > 1 else ""
    wide = cost.precision == "float32"
    peak = cost.accelerator.flops if wide else cost.accelerator.narrow_flops
    flops = cost.step.flops / cost.step.seconds
    return (
        f"{_three(one)} images/s on a device{all_of_them}; {flops / 1e12:.3g} TFLOP/s of "
        f"{peak / 1e12:.3g}"
    )


def _run(cost: Cost) -> str:
    if cost.run is None or cost.hours is None:
        return "no recipe"
    epochs = cost.run.recipe.epochs
    shared = f", {cost.hours * cost.devices:,.0f} device-hours" if cost.devices > 1 else ""
    return f"{cost.run.steps:,} steps ({epochs} epochs): {_seconds(cost.hours * 3600)}{shared}"


def _data(cost: Cost) -> str:
    noun = "core reads" if cost.cores == 1 else "cores read"
    return (
        f"{cost.cores:,} {noun} images as fast as a device trains, at {cost.decoding:.0f} "
        f"images/s a core by this recipe ({MEASURED_ON})"
    )


def _memory(cost: Cost) -> str:
    parts = asdict(cost.step.memory)
    said = ", ".join(f"{MEMORY[part]} {_gb(number)}" for part, number in parts.items() if number)
    total = cost.step.memory.total
    return f"{_gb(total)} GB of {_gb(cost.accelerator.memory)} on a device: {said}"


def _fits(cost: Cost) -> str:
    most, parts = cost.largest, cost.step.accumulation
    if parts == 1:
        return f"yes, up to {most:,} images on a device"
    micro = cost.images // parts
    noun = "image" if micro == 1 else "images"
    return (
        f"no, {f'{most:,} at most' if most else 'not one'} of the {cost.images:,} images on a "
        f"device; counted as {parts:,} micro-batches of {micro:,} {noun}, accumulated"
        + (f"; with --set recipe.remat={cost.remat} they fit" if cost.remat else "")
    )


def _efficiency(cost: Cost) -> str:
    calibration, given = cost.calibration, cost.accelerator
    share = f"{calibration.efficiency:.2f} of the roofline"
    source = ACCELERATORS[calibration.like].timings_source
    if calibration.like == given.name:
        return f"{share}: the mean of {len(given.timings)} measured steps ({source})"
    return (
        f"{share}, as measured on {calibration.like} ({source}); nothing is calibrated on "
        f"{given.name}"
    )


def _error(cost: Cost) -> str:
    calibration = cost.calibration
    of = (
        "each measured step by the mean of the others"
        if calibration.like == cost.accelerator.name
        else "measured steps by the means of other accelerators"
    )
    return f"{of}: {_factors(calibration)}"


def _factors(calibration: Calibration) -> str:
    return (
        f"off by a factor of {calibration.typical:.2f} typically, {calibration.worst:.2f} at worst"
    )


def _figures(given: Accelerator, precision: str) -> str:
    flops = given.flops if precision == "float32" else given.narrow_flops
    link = f", {given.link / 1e9:,.0f} GB/s to others" if given.link else ""
    return (
        f"{flops / 1e12:.3g} TFLOP/s, {given.bandwidth / 1e9:,.3g} GB/s{link}, "
        f"{given.memory / GIB:.3g} GiB ({given.source})"
    )


def headline(cost: Cost) -> list[str]:
    shared = f", {cost.images:,} on each of {cost.devices:,} devices" if cost.devices > 1 else ""
    shared += f", kernels in {cost.parts:,} parts" if cost.parts > 1 else ""
    noun = "image" if cost.step.batch == 1 else "images"
    facts = {
        "step": f"{cost.step.batch:,} {noun} of {cost.size} px, {cost.precision}{shared}",
        "time": _time(cost),
        "speed": _speed(cost),
        "run": _run(cost),
        "data": _data(cost),
        "memory": _memory(cost),
        "fits": _fits(cost),
        "model": _efficiency(cost),
        "error": _error(cost),
        "figures": _figures(cost.accelerator, cost.precision),
    }
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    lines = [wrap.wrap(f"{name:<7}  {fact}") for name, fact in facts.items()]
    return [bold(f"{cost.plan.name} on {cost.accelerator.name}"), *chain.from_iterable(lines)]


def parts(cost: Cost) -> list[str]:
    """Lines with the parts of a step, the longest first."""
    total = cost.step.seconds
    longest = sorted(cost.step.parts.items(), key=lambda item: -item[1])
    rows = [[part, f"{s * 1e3:,.1f}", f"{s / total:.0%}"] for part, s in longest if s]
    header, *lines = table([["part of a step", "ms", "share"], *rows], "<>>")
    return [bold(header), *lines]


def check_lines(checked: Sequence[tuple[Accelerator, Calibration]]) -> list[str]:
    """Lines with each measured step, and the seconds that the model predicts for it."""
    wrap = textwrap.TextWrapper(WIDTH)
    lines = wrap.wrap(
        "Measured seconds of a training step, and this model's, each by the mean efficiency of the "
        "accelerator's other steps"
    )
    for each, calibration in checked:
        header = [each.name, "px", "images", "measured", "model", "ratio"]
        rows = [
            [
                timing.variant,
                str(timing.size),
                str(timing.batch),
                f"{timing.seconds:.4f}",
                f"{ratio * timing.seconds:.4f}",
                f"{ratio:.2f}",
            ]
            for timing, ratio in zip(each.timings, calibration.ratios, strict=True)
        ]
        first, *others = table([header, *rows], "<>>>>>")
        lines += ["", bold(first), *others]
        lines += wrap.wrap(
            f"{each.devices} x {each.name}, {each.precision}; {each.timings_source}; efficiency "
            f"{calibration.efficiency:.2f}; {_factors(calibration)}"
        )
    return lines
