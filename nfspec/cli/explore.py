"""`nfspec explore`: a page of HTML to look at networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfspec.cli.options import MAX_IMAGES, Changes, changed_by, names
from nfspec.console import print_lines, say
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.design.candidates import trainings_in
from nfspec.design.explorer.page import BATCH, DEVICES, PRECISION
from nfspec.design.explorer.page import explore as page_of
from nfspec.errors import InputError
from nfspec.files import write
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.wording import printable

KNOWN = ", ".join(name for name in ACCELERATORS if name != "cpu")


def explore(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC|RUN",
            help="Built-in specs, paths of .toml files, or folders that `nfspec train` or `sweep` "
            "wrote.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path(
        "explorer.html"
    ),
    only: Annotated[
        bool,
        typer.Option("--only", help="Show SPECs and RUNs alone, without the built-in networks."),
    ] = False,
    accelerator: Annotated[
        str, typer.Option(metavar="NAMES", help=f"Devices, a list with commas, of {KNOWN}.")
    ] = ",".join(DEVICES),
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_IMAGES, help="Images in a step, on one device.")
    ] = BATCH,
    precision: Annotated[
        str, typer.Option(help="Dtype of a step: float32, bfloat16 or float16.")
    ] = PRECISION,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write a page of HTML to look at networks, and to compare them.

    All built-in networks are on it, and SPECs, which --set changes, and trainings with the highest
    top-1 of their logs: a chart of parameters, multiply-accumulates, time of a step and top-1,
    published or of the training; and of each network a drawing, the
    expected signal, the cost by block, clipping and weight decay, the spec and sources to copy, and
    its differences from another one. The page is one file that works offline.

    \b
      nfspec explore
      nfspec explore mine.toml runs/mine --out mine.html

    Nothing in a spec is run, whoever wrote it, nor does a page run it.
    """
    trainings = {path: trainings_in(path) for path in specs or []}
    named = [path for path in specs or [] if not trainings[path]]
    if changes and not named:
        raise InputError("--set changes SPECs; name one")
    require_free(out, force)
    over = changed_by(changes)
    loaded = [load(spec, over) for spec in named]
    text = page_of(
        loaded,
        runs=[run for runs in trainings.values() for run in runs],
        only=only,
        accelerators=names(accelerator),
        batch=batch,
        precision=precision,
        step=say,
    )
    require_free(out, force)  # again: a file may have come to be there meanwhile
    write(out, text)
    print_lines([f"wrote {printable(str(out))}, {len(text.encode()) / 1e6:.1f} MB"])
