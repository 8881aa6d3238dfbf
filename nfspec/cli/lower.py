"""`nfspec lower`: a network's JAX program, compiled ahead of time for another device."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfspec.cli.options import MAX_IMAGES, MAX_SIDE, Changes, SpecName, changed_by
from nfspec.console import WIDTH, print_json, print_lines, say, table
from nfspec.cost.accelerators import GIB
from nfspec.cost.memory import training_bytes
from nfspec.cost.rows import LANES
from nfspec.files import write
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.plan import Plan
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks

if TYPE_CHECKING:
    from nfspec.backends.lowering.lower import Lowered


def lower(
    variant: SpecName,
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="Device: cpu, or a TPU and its topology, such as tpu-v3:2x2, tpu-v4:2x2x1, "
            "tpu-v5e:4x4 or tpu-v6e:2x2. A TPU need not be there, but its compiler: "
            'pip install "jax[tpu]". For cuda the program is made, and not compiled.',
        ),
    ],
    work: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Program: forward; folded, the forward pass of the folded network; or step, a "
            "training step of the spec's recipe with clipping, update and moving average.",
        ),
    ] = "step",
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_IMAGES, metavar="N", help="Images on each device.")
    ] = 1,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SIDE,
            metavar="PX",
            help="Side of the images, px. Default: the spec's, for this work.",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="float32, or bfloat16 with float32 parameters.")
    ] = "float32",
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Split parameters, and what the optimizer keeps of them, over the devices.",
        ),
    ] = False,
    changes: Changes = None,
    hlo: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write the compiled program to, as XLA prints it."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a network for another device, and print what it costs there.

    The program is that of JAX, compiled ahead of time by the device's own compiler.
    Operations, bytes, memory and what devices exchange are those of the compiled program. Nothing
    is run on the device, so that no number of the network is tested. Exit status 1 if the program
    has something that it should not have: arrays of float64, calls to the host, statistics or
    sums in 16 bits, convs in float32 where bfloat16 was asked for, gradients that are added up over
    devices twice, or a state that is copied.

    Compiling a step takes from a minute, for a small network, to a quarter of an hour. Nothing in
    a spec is run, whoever wrote it.
    """
    if hlo is not None:
        require_free(hlo, force)
    plan = resolve(load(variant, changed_by(changes)))
    # A program for another device cannot be read back on this machine.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    frameworks.start("jax")
    from nfspec.backends.lowering.lower import lower as lowered

    say(f"compiling {plan.name}, {work}, for {target} ...")
    done = lowered(plan, work, target, batch=batch, size=size, precision=precision, shard=shard)
    if hlo is not None:
        write(hlo, done.text)
        say(f"wrote {hlo}")
    if as_json:
        print_json(_json(done))
    else:
        print_lines(_lines(done, plan, shard))
    if done.faults:
        raise typer.Exit(1)


def _json(done: Lowered) -> dict[str, Any]:
    return {name: value for name, value in asdict(done).items() if name != "text"}


def _lines(done: Lowered, plan: Plan, shard: bool) -> list[str]:
    many = "1 device" if done.devices == 1 else f"{done.devices} devices"
    images = "1 image" if done.batch == 1 else f"{done.batch} images"
    head = f"{done.name}, {done.work}, {done.precision}, on {done.target}: {many}, {images} of "
    lines = [f"{head}{done.size} px on each", "", *table(_rows(done, plan, shard), "<>>"), ""]
    lines += textwrap.wrap(_exchanged(done), WIDTH) if done.devices > 1 else []
    for fault in done.faults:
        lines += textwrap.wrap(f"NOT AS IT SHOULD BE: {fault}", WIDTH)
    if not done.faults:
        lines.append("nothing that a program of a network should not have")
    return lines


def _rows(done: Lowered, plan: Plan, shard: bool) -> Sequence[tuple[str, str, str]]:
    """Figures of one device that are known, beside those that `nfspec cost` has for them."""
    from nfspec.backends.lowering.targets import target_of

    steps = done.work == "step"
    macs = count(plan, size=done.size).macs * done.batch
    needed = ""
    if steps:
        lanes = LANES if target_of(done.target).topology else 0
        parts = done.devices if shard else 1
        how = (done.size, done.precision, False, lanes, parts)
        most = training_bytes(plan, done.batch, *how)
        needed = f"{most / GIB:.2f}"
    figures = [
        ("GFLOP", done.flops, 1e9, ".4g", f"{(6 if steps else 2) * macs / 1e9:.4g}"),
        ("GB read and written", done.bytes_accessed, 1e9, ".3g", ""),
        ("the compiler's estimate, ms", done.seconds, 1e-3, ".3g", ""),
        ("arguments, GiB", done.arguments, GIB, ".2f", ""),
        ("temporary memory, GiB", done.temporaries, GIB, ".2f", ""),
        ("peak memory, GiB", done.peak, GIB, ".2f", needed),
        ("memory of a device, GiB", done.memory, GIB, ".0f", ""),
        ("updated in place, GiB", done.donated if steps else None, GIB, ".2f", ""),
        ("program, MB", done.code, 1e6, ".3g", ""),
        ("time to compile, s", done.compile_seconds, 1, ".0f", ""),
    ]
    made = "not compiled" if done.compile_seconds is None else "compiled"
    return [
        ("on one device", made, "nfspec cost"),
        *(
            (name, f"{value / unit:{form}}", ours)
            for name, value, unit, form, ours in figures
            if value is not None
        ),
    ]


def _exchanged(done: Lowered) -> str:
    kinds: dict[tuple[str, str], list[int]] = {}
    for each in done.collectives:
        kinds.setdefault((each.kind, " and ".join(each.dtypes)), []).append(each.bytes)
    if not kinds:
        return "devices exchange nothing"
    parts = [
        f"{len(sizes)} {kind} of {sum(sizes) / 1e6:.1f} MB in {dtypes}"
        for (kind, dtypes), sizes in kinds.items()
    ]
    return "devices exchange " + "; ".join(parts)
