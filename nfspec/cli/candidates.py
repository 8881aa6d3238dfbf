"""`nfspec table`: candidates side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from nfspec.cli.options import MAX_IMAGES, Changes, changed_by, names
from nfspec.console import as_csv, bold, broken, compact, cut, print_json, print_lines, print_text
from nfspec.console import table as aligned
from nfspec.cost.accelerators import ACCELERATORS, Accelerator, named
from nfspec.design.candidates import (
    Candidate,
    candidate,
    cost_of,
    front,
    run_candidate,
    trainings_in,
)
from nfspec.design.plots import plot_candidates
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.training.plots import require_matplotlib
from nfspec.wording import printable

MOST_ROWS = 1_000
LONGEST = 30  # characters of a name in a table
MEASURED = tuple(name for name in ACCELERATORS if name != "cpu")
SORTS = {
    "macs": lambda row: row.macs,
    "parameters": lambda row: row.parameters,
    "activations": lambda row: row.activation_bytes,
    "step": cost_of,
    "top1": lambda row: -(row.top1 or 0.0),
    "name": lambda row: row.label,
}


def table(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC|RUN",
            help="Built-in specs, paths of .toml files, or folders that `nfspec train` or `sweep` "
            "wrote.",
        ),
    ],
    accelerator: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help=f"Devices, a list with commas, of {', '.join(MEASURED)}."
        ),
    ] = "",
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_IMAGES, help="Images in a step, on one device.")
    ] = 256,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Default: the recipe's.")
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help=f"Column to sort by: {', '.join(SORTS)}.")
    ] = "macs",
    plot: Annotated[Path | None, typer.Option(help="PNG file to write: top-1 over cost.")] = None,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_table: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare candidates: parameters, costs, and top-1 where it is known.

    With --set FIELD=A,B,C each SPEC is a row for each value, and with several such options for each
    combination. Top-1 is the highest of a training's log, or the published one. A * marks the
    Pareto front: no other row of the same images costs less and is as often right. The cost is a
    step on the first accelerator, or multiply-accumulates. Times and memory are estimates; see
    nfspec cost.

    \b
      nfspec table nfnet-f0 nfnet-f1 nf-regnet-b5 --accelerator h100
      nfspec table nfnet-f0 --set stages.alpha=0.1,0.2 --set block.convs=1,2 --csv
      nfspec table runs/* --accelerator h100 --plot runs.png

    Nothing in a file is run, whoever wrote it.
    """
    if as_json and as_table:
        raise InputError("--json and --csv: give one of them")
    if sort not in SORTS:
        raise InputError(f"--sort: expected one of {', '.join(SORTS)}; found {printable(sort)!r}")
    if plot is not None:
        require_free(plot, force)
        require_matplotlib()
    devices = [_device(name) for name in names(accelerator)]
    rows = _rows(specs, changes or [], devices, batch, precision)
    rows.sort(key=SORTS[sort])
    best = front(rows)
    if plot is not None:
        require_free(plot, force)  # again: a file may have come to be there meanwhile
        plot_candidates(rows, best, plot)
    if as_json:
        print_json([{**asdict(row), "front": n in best} for n, row in enumerate(rows)])
    elif as_table:
        print_text(as_csv(_csv(rows, best, devices)).rstrip("\n"))
    else:
        print_lines(_lines(rows, best, devices, batch))
        if plot is not None:
            print_lines([f"wrote  {printable(str(plot))}"])


def _device(name: str) -> Accelerator:
    if name == "cpu":
        raise InputError(
            "--accelerator: the cpu is measured by nfspec cost --accelerator cpu alone"
        )
    return named(name)


def _rows(
    specs: Sequence[str],
    changes: Sequence[str],
    devices: Sequence[Accelerator],
    batch: int,
    precision: str | None,
) -> list[Candidate]:
    grid = [_values(text) for text in changes]
    combinations = list(product(*grid))
    if len(specs) * len(combinations) > MOST_ROWS:
        raise InputError(f"--set: more than {MOST_ROWS:,} rows; give fewer values")
    layers = [changed_by(list(each)) for each in combinations]  # all of them are read first
    varied = [len(values) > 1 for values in grid]
    rows: list[Candidate] = []
    for spec in specs:
        if runs := trainings_in(spec):
            rows += [run_candidate(run, devices, batch, precision) for run in runs]
            continue
        for texts, over in zip(combinations, layers, strict=True):
            shown = [text for text, each in zip(texts, varied, strict=True) if each]
            rows.append(candidate(load(spec, over), devices, batch, precision, shown))
    return rows


def _values(text: str) -> list[str]:
    """`FIELD=VALUE` for each of the values of `FIELD=A,B,C`; commas in brackets and quotes are
    part of a value."""
    field, equals, values = text.partition("=")
    if not equals:
        return [text]
    parts, depth, quote = [""], 0, ""
    for character in values:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "[{") - (character in "]}") if not quote else 0
        if character == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [f"{field.strip()}={part.strip()}" for part in parts]


def _csv(
    rows: Sequence[Candidate], best: set[int], devices: Sequence[Accelerator]
) -> list[list[Any]]:
    each = ("precision", "memory", "seconds", "images_per_second", "hours")
    estimates = [f"{device.name} {field}" for device in devices for field in each]
    counts = ["parameters", "macs", "activation_bytes"]
    lines: list[list[Any]] = [
        ["name", "changes", "size", *counts, *estimates, "top1", "data", "front"]
    ]
    for n, row in enumerate(rows):
        found = [getattr(row.on[device.name], field, None) for device in devices for field in each]
        cells = [row.name, " ".join(row.changes), row.size, *(getattr(row, key) for key in counts)]
        score = ["" if row.top1 is None else row.top1, row.data, int(n in best)]
        lines.append([*cells, *("" if value is None else value for value in found), *score])
    return lines


def _lines(
    rows: Sequence[Candidate], best: set[int], devices: Sequence[Accelerator], batch: int
) -> list[str]:
    cells = [["", "px", "params", "MACs", "activ.", "top-1", "", "of"]]
    for n, row in enumerate(rows):
        counts = [compact(row.parameters), compact(row.macs), f"{compact(row.activation_bytes)}B"]
        score = "" if row.top1 is None else f"{row.top1:.1%}"
        mark = "*" if n in best else ""
        cells.append([row.label, str(row.size), *counts, score, mark, cut(row.data, 20)])
    header, *lines = aligned(broken(cells, LONGEST), "<>>>>><<")
    printed = [bold(header), *lines]
    for device in devices:
        cells = [
            [f"{device.name}, batch {batch:,}", "dtype", "memory", "step", "images/s", "hours"]
        ]
        for row in rows:
            if (found := row.on[device.name]) is None:
                cells.append([row.label, "", "no image fits", "", "", ""])
                continue
            hours = "" if found.hours is None else f"{found.hours:,.1f}"
            memory, seconds = f"{found.memory / 1e9:.1f} GB", f"{found.seconds * 1e3:,.0f} ms"
            speed = f"{found.images_per_second:,.0f}"
            cells.append([row.label, found.precision, memory, seconds, speed, hours])
        header, *lines = aligned(broken(cells, LONGEST), "<<>>>>")
        printed += ["", bold(header), *lines]
    if devices:
        printed += ["", "hours: of one device, for the recipe's whole training"]
    return printed
