"""`nfspec cost`: memory, step time and the length of a training run, by arithmetic."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Annotated, Any

import typer

from nfspec.cli.options import MAX_DEVICES, MAX_IMAGES, MAX_SIDE
from nfspec.console import WIDTH, bold, print_json, print_lines, say, table
from nfspec.cost.accelerators import ACCELERATORS, GIB, Accelerator, named
from nfspec.cost.memory import largest_batch
from nfspec.cost.roofline import Calibration, Step, calibrate, step
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve
from nfspec.training.runs import Run, recipe

MEMORY = {  # of a field of Memory, what is printed
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
class _Cost:
    """All that is printed of a network; `run` is None where its spec has no recipe."""

    plan: Plan
    accelerator: Accelerator
    devices: int
    size: int
    precision: str
    step: Step
    largest: int
    calibration: Calibration
    run: Run | None

    @property
    def images(self) -> int:
        return self.step.batch // self.devices

    @property
    def hours(self) -> float | None:
        return self.run.steps * self.step.seconds / 3600 if self.run else None


MAX_FIGURE = 1e9  # of --tflops and --gbs; no machine is near it


def _here(given: Accelerator, tflops: float | None, gbs: float | None) -> Accelerator:
    """The cpu with this machine's figures; what is not given is measured."""
    if tflops is None or gbs is None:
        from nfspec.cost import machine

        say("measuring the machine ...")
        tflops = machine.sgemm() / 1e3 if tflops is None else tflops
        gbs = machine.bandwidth() if gbs is None else gbs
    memory = given.memory
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flops = tflops * 1e12
    return replace(given, flops=flops, narrow_flops=flops, bandwidth=gbs * 1e9, memory=memory)


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


def _time(cost: _Cost) -> str:
    seconds, typical, worst = cost.step.seconds, cost.calibration.typical, cost.calibration.worst
    near = f"{_seconds(seconds / typical)} to {_seconds(seconds * typical)}"
    far = f"{_seconds(seconds / worst)} to {_seconds(seconds * worst)}"
    return f"{_seconds(seconds)}; probably {near}, at worst {far}"


def _speed(cost: _Cost) -> str:
    one = cost.images / cost.step.seconds
    all_of_them = f", {one * cost.devices:,.0f} on all" if cost.devices > 1 else ""
    wide = cost.precision == "float32"
    peak = cost.accelerator.flops if wide else cost.accelerator.narrow_flops
    flops = cost.step.flops / cost.step.seconds
    return (
        f"{_three(one)} images/s on a device{all_of_them}; {flops / 1e12:.3g} TFLOP/s of "
        f"{peak / 1e12:.3g}"
    )


def _run(cost: _Cost) -> str:
    if cost.run is None or cost.hours is None:
        return "no recipe"
    epochs = cost.run.recipe.epochs
    shared = f", {cost.hours * cost.devices:,.0f} device-hours" if cost.devices > 1 else ""
    return f"{cost.run.steps:,} steps ({epochs} epochs): {_seconds(cost.hours * 3600)}{shared}"


def _memory(cost: _Cost) -> str:
    parts = asdict(cost.step.memory)
    said = ", ".join(f"{MEMORY[part]} {_gb(number)}" for part, number in parts.items() if number)
    total = cost.step.memory.total
    return f"{_gb(total)} GB of {_gb(cost.accelerator.memory)} on a device: {said}"


def _fits(cost: _Cost) -> str:
    most, parts = cost.largest, cost.step.accumulation
    if parts == 1:
        return f"yes, up to {most:,} images on a device"
    micro = cost.images // parts
    noun = "image" if micro == 1 else "images"
    return (
        f"no, {f'{most:,} at most' if most else 'not one'} of the {cost.images:,} images on a "
        f"device; counted as {parts:,} micro-batches of {micro:,} {noun}, accumulated"
    )


def _efficiency(cost: _Cost) -> str:
    found, given = cost.calibration, cost.accelerator
    share = f"{found.efficiency:.2f} of the roofline"
    source = ACCELERATORS[found.like].timings_source
    if found.like == given.name:
        return f"{share}: the mean of {len(given.timings)} measured steps ({source})"
    return f"{share}, as measured on {found.like} ({source}); nothing is calibrated on {given.name}"


def _error(cost: _Cost) -> str:
    found = cost.calibration
    of = (
        "each measured step by the mean of the others"
        if found.like == cost.accelerator.name
        else "measured steps by the means of other accelerators"
    )
    return f"{of}: {_factors(found)}"


def _factors(found: Calibration) -> str:
    return f"off by a factor of {found.typical:.2f} typically, {found.worst:.2f} at worst"


def _figures(given: Accelerator, precision: str) -> str:
    flops = given.flops if precision == "float32" else given.narrow_flops
    link = f", {given.link / 1e9:,.0f} GB/s to others" if given.link else ""
    return (
        f"{flops / 1e12:.3g} TFLOP/s, {given.bandwidth / 1e9:,.3g} GB/s{link}, "
        f"{given.memory / GIB:.3g} GiB ({given.source})"
    )


def _headline(cost: _Cost) -> list[str]:
    shared = f", {cost.images:,} on each of {cost.devices:,} devices" if cost.devices > 1 else ""
    noun = "image" if cost.step.batch == 1 else "images"
    facts = {
        "step": f"{cost.step.batch:,} {noun} of {cost.size} px, {cost.precision}{shared}",
        "time": _time(cost),
        "speed": _speed(cost),
        "run": _run(cost),
        "memory": _memory(cost),
        "fits": _fits(cost),
        "model": _efficiency(cost),
        "error": _error(cost),
        "figures": _figures(cost.accelerator, cost.precision),
    }
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    lines = [wrap.wrap(f"{name:<7}  {fact}") for name, fact in facts.items()]
    return [bold(f"{cost.plan.name} on {cost.accelerator.name}"), *chain.from_iterable(lines)]


def _parts(cost: _Cost) -> list[str]:
    """Where the time goes, the longest part first."""
    total = cost.step.seconds
    found = sorted(cost.step.parts.items(), key=lambda item: -item[1])
    rows = [[part, f"{s * 1e3:,.1f}", f"{s / total:.0%}"] for part, s in found if s]
    header, *lines = table([["part of a step", "ms", "share"], *rows], "<>>")
    return [bold(header), *lines]


def _json(cost: _Cost) -> dict[str, Any]:
    memory = cost.step.memory
    return {
        "name": cost.plan.name,
        "digest": cost.plan.digest,
        "accelerator": cost.accelerator.name,
        "devices": cost.devices,
        "batch": cost.step.batch,
        "size": cost.size,
        "precision": cost.precision,
        "step": {
            "seconds": cost.step.seconds,
            "parts": cost.step.parts,
            "flops_per_device": cost.step.flops,
            "images_per_second": cost.step.batch / cost.step.seconds,
            "accumulation": cost.step.accumulation,
        },
        "run": {
            "steps": cost.run.steps,
            "hours": cost.hours,
            "device_hours": cost.hours * cost.devices,
        }
        if cost.run and cost.hours is not None
        else None,
        "memory": {
            "available": cost.accelerator.memory,
            "needed": memory.total,
            "parts": asdict(memory),
            "largest_batch_per_device": cost.largest,
            "fits": cost.step.accumulation == 1,
        },
        "model": _calibration_json(cost.calibration),
    }


def _calibration_json(found: Calibration) -> dict[str, Any]:
    return {
        "efficiency": found.efficiency,
        "calibrated_on": found.like,
        "typical_error": found.typical,
        "worst_error": found.worst,
    }


def _checked() -> list[tuple[Accelerator, Calibration]]:
    return [(each, calibrate(each.name)) for each in ACCELERATORS.values() if each.timings]


def _check_lines() -> Sequence[str]:
    wrap = textwrap.TextWrapper(WIDTH)
    lines = wrap.wrap(
        "Measured seconds of a training step, and this model's, each by the mean efficiency of the "
        "accelerator's other steps"
    )
    for each, found in _checked():
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
            for timing, ratio in zip(each.timings, found.ratios, strict=True)
        ]
        first, *others = table([header, *rows], "<>>>>>")
        lines += ["", bold(first), *others]
        lines += wrap.wrap(
            f"{each.devices} x {each.name}, {each.precision}; {each.timings_source}; efficiency "
            f"{found.efficiency:.2f}; {_factors(found)}"
        )
    return lines


def _check_json() -> dict[str, Any]:
    return {
        each.name: {
            **_calibration_json(found),
            "source": each.timings_source,
            "devices": each.devices,
            "precision": each.precision,
            "steps": [
                {**asdict(timing), "model_seconds": ratio * timing.seconds, "ratio": ratio}
                for timing, ratio in zip(each.timings, found.ratios, strict=True)
            ],
        }
        for each, found in _checked()
    }


def cost(
    variant: Annotated[
        str | None, typer.Argument(metavar="VARIANT", help="Name, or path of a .toml file.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_IMAGES, help="Images in a step, on all devices; else the recipe's."
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, max=MAX_DEVICES, help="Devices that share the batch.")
    ] = 1,
    on: Annotated[
        str, typer.Option("--accelerator", metavar="NAME", help=", ".join(ACCELERATORS) + ".")
    ] = "tpu-v3",
    size: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SIDE, help="Image side in px; else the training size."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; else the recipe's.")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-6, max=MAX_FIGURE, help="Peak of the cpu; measured if not given."),
    ] = None,
    gbs: Annotated[
        float | None,
        typer.Option(
            min=1e-6, max=MAX_FIGURE, help="Bandwidth of the cpu's memory; measured if not given."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="The model against measured steps, without VARIANT.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate what training takes: memory, a step, the run.

    Arithmetic from the network's multiplications and bytes and the figures that makers publish of
    their accelerators; nothing runs. Each operation is bound by one or the other, and a device
    reaches one share of both, the mean over steps that were measured on it. --check prints how far
    that is from each of them. A tpu-v3 is one core.

    Nothing in a file is run, whoever wrote it.
    """
    if check:
        if variant is not None:
            raise InputError(f"--check is of what was measured; leave out {variant!r}")
        if as_json:
            print_json(_check_json())
        else:
            print_lines(_check_lines())
        return
    if variant is None:
        raise typer.BadParameter("missing VARIANT, or --check")
    plan, given = resolve(load(variant)), named(on)
    if on != "cpu" and (tflops is not None or gbs is not None):
        raise InputError(f"--tflops and --gbs are figures of the cpu; those of {on} are published")
    if plan.recipe is None and (batch is None or precision is None):
        raise InputError(
            f"{plan.name} has no [recipe] to take the batch and precision from; give --batch and "
            "--precision, or add the table to its spec"
        )
    if on == "cpu":
        given = _here(given, tflops, gbs)
    run = recipe(plan, batch=batch) if plan.recipe else None
    batch = run.batch if run else batch or 1
    precision = precision or (plan.recipe.precision if plan.recipe else "float32")
    size = size or plan.train_size
    found = calibrate(on)
    result = _Cost(
        plan=plan,
        accelerator=given,
        devices=devices,
        size=size,
        precision=precision,
        step=step(plan, given, batch, devices, size, precision, found.efficiency),
        largest=largest_batch(plan, given.memory, size, precision),
        calibration=found,
        run=run,
    )
    if as_json:
        print_json(_json(result))
    else:
        print_lines([*_headline(result), "", *_parts(result)])
