"""`nfspec cost`: memory, step time and the length of a training run, by arithmetic."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from nfspec.cli.cost_text import Cost, check_lines, headline, parts
from nfspec.cli.options import MAX_DEVICES, MAX_IMAGES, MAX_SIDE, Changes, changed_by
from nfspec.console import print_json, print_lines, say
from nfspec.cost import machine
from nfspec.cost.accelerators import ACCELERATORS, Accelerator, named
from nfspec.cost.decoding import MEASURED_ON
from nfspec.cost.memory import largest_batch
from nfspec.cost.roofline import Calibration, calibrate, step
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve
from nfspec.training.runs import Run, recipe

MAX_FIGURE = 1e9  # for --tflops and --gbs; no machine is near it


def _here(given: Accelerator, tflops: float | None, gbs: float | None) -> Accelerator:
    """The cpu with this machine's figures; a figure that is not given is measured."""
    if tflops is None or gbs is None:
        say("measuring the machine ...")
        tflops = machine.sgemm() / 1e3 if tflops is None else tflops
        gbs = machine.bandwidth() if gbs is None else gbs
    memory = given.memory
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flops = tflops * 1e12
    return replace(given, flops=flops, narrow_flops=flops, bandwidth=gbs * 1e9, memory=memory)


def _json(cost: Cost) -> dict[str, Any]:
    memory = cost.step.memory
    return {
        "name": cost.plan.name,
        "digest": cost.plan.digest,
        "accelerator": cost.accelerator.name,
        "devices": cost.devices,
        "parts": cost.parts,
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
        "data": {
            "cores_per_device": cost.cores,
            "images_per_second_per_core": cost.decoding,
            "measured_on": MEASURED_ON,
        },
        "memory": {
            "available": cost.accelerator.memory,
            "needed": memory.total,
            "parts": asdict(memory),
            "largest_batch_per_device": cost.largest,
            "fits": cost.step.accumulation == 1,
            "fits_with_remat": cost.remat or None,
        },
        "model": _calibration_json(cost.calibration),
    }


def _calibration_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "efficiency": calibration.efficiency,
        "calibrated_on": calibration.like,
        "typical_error": calibration.typical,
        "worst_error": calibration.worst,
    }


def _checked() -> list[tuple[Accelerator, Calibration]]:
    """Every accelerator with measured steps, and how well the model predicts them."""
    return [(each, calibrate(each.name)) for each in ACCELERATORS.values() if each.timings]


def _check_json() -> dict[str, Any]:
    return {
        each.name: {
            **_calibration_json(calibration),
            "source": each.timings_source,
            "devices": each.devices,
            "precision": each.precision,
            "steps": [
                {**asdict(timing), "model_seconds": ratio * timing.seconds, "ratio": ratio}
                for timing, ratio in zip(each.timings, calibration.ratios, strict=True)
            ],
        }
        for each, calibration in _checked()
    }


Spec = Annotated[
    str | None,
    typer.Argument(metavar="SPEC", help="A built-in spec, or the path of a .toml file."),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_IMAGES,
        metavar="N",
        help="Images in a step, on all devices. Default: the recipe's.",
    ),
]
Devices = Annotated[
    int,
    typer.Option(min=1, max=MAX_DEVICES, metavar="N", help="Number of devices that share a batch."),
]
Shard = Annotated[
    bool,
    typer.Option(
        "--shard", help="Keep kernels in parts over the devices, as nfspec train --shard does."
    ),
]
On = Annotated[
    str,
    typer.Option("--accelerator", metavar="NAME", help=f"One of {', '.join(ACCELERATORS)}."),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_SIDE,
        metavar="PX",
        help="Side of the images, px. Default: the spec's training size.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="float32, bfloat16 or float16. Default: the recipe's."),
]
Tflops = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        max=MAX_FIGURE,
        metavar="NUMBER",
        help="Peak TFLOP/s of the cpu. Default: measured.",
    ),
]
Gbs = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        max=MAX_FIGURE,
        metavar="NUMBER",
        help="Memory bandwidth of the cpu, GB/s. Default: measured.",
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Print the estimates beside measured steps; takes no SPEC."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def cost(
    variant: Spec = None,
    batch: Batch = None,
    devices: Devices = 1,
    shard: Shard = False,
    on: On = "tpu-v3",
    size: Size = None,
    precision: Precision = None,
    tflops: Tflops = None,
    gbs: Gbs = None,
    check: Check = False,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the memory and the time of a training.

    Nothing is trained. The time of an operation is the larger of two times: that of its
    multiplications at the accelerator's peak, and that of its bytes at the accelerator's bandwidth,
    as the makers publish both. A device reaches only a share of them; the share is the mean over
    steps that were measured on it. --check prints how far the estimate is from each measured step.
    The accelerator tpu-v3 is one core of a TPU v3.

    Nothing in a file is run, whoever wrote it.
    """
    if check:
        if variant is not None:
            raise InputError(f"--check prints measured steps only; leave out {variant!r}")
        if as_json:
            print_json(_check_json())
        else:
            print_lines(check_lines(_checked()))
        return
    if variant is None:
        raise typer.BadParameter("missing SPEC, or --check")
    plan, accelerator = resolve(load(variant, changed_by(changes))), named(on)
    if on != "cpu" and (tflops is not None or gbs is not None):
        raise InputError(f"--tflops and --gbs are for --accelerator cpu only, not for {on}")
    if plan.recipe is None and (batch is None or precision is None):
        raise InputError(
            f"{plan.name} has no [recipe] to take the batch and precision from; give --batch and "
            "--precision, or add the table to its spec"
        )
    if on == "cpu":
        accelerator = _here(accelerator, tflops, gbs)
    if shard and devices == 1:
        say("--shard has no effect on one device")
    result = _estimate(plan, accelerator, batch, devices, shard, size, precision)
    if as_json:
        print_json(_json(result))
    else:
        print_lines([*headline(result), "", *parts(result)])


def _estimate(
    plan: Plan,
    accelerator: Accelerator,
    batch: int | None,
    devices: int,
    shard: bool,
    size: int | None,
    precision: str | None,
) -> Cost:
    """The costs of a step and of the run; a value that is None is the recipe's or the spec's."""
    run: Run | None = recipe(plan, batch=batch) if plan.recipe else None
    images = run.batch if run else batch or 1
    kind = precision or (plan.recipe.precision if plan.recipe else "float32")
    side = size or plan.train_size
    calibration = calibrate(accelerator.name)
    share, parts = calibration.efficiency, devices if shard else 1

    def most(plan: Plan) -> int:
        memory, lanes = accelerator.memory, accelerator.lanes
        return largest_batch(plan, memory, side, kind, lanes=lanes, parts=parts)

    return Cost(
        plan=plan,
        accelerator=accelerator,
        devices=devices,
        parts=parts,
        size=side,
        precision=kind,
        step=step(plan, accelerator, images, devices, side, kind, share, shard),
        largest=most(plan),
        calibration=calibration,
        run=run,
        remat=_remat(plan, images // devices, most),
    )


def _remat(plan: Plan, images: int, most: Callable[[Plan], int]) -> str:
    """The least that is computed again for images to fit, of which `most` do: see `Cost`."""
    if plan.recipe is None or most(plan) >= images:
        return ""
    for what in ("block", "stage"):
        again = replace(plan, recipe=plan.recipe.model_copy(update={"remat": what}))
        if most(again) >= images:
            return what
    return ""
