"""`nfspec plot`: the logs of trainings as one picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nfspec.console import print_lines, say
from nfspec.errors import InputError
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.training import logs
from nfspec.training.plots import plot as draw
from nfspec.wording import printable


def _read(folder: Path) -> list[logs.Entry]:
    path = folder / "log.jsonl"
    if not os.path.lexists(path):
        raise InputError(f"{printable(str(folder))}: no training in it (no log.jsonl)")
    try:
        return logs.read(path, say)
    except OSError as error:
        raise InputError(
            f"{printable(str(path))}: cannot be read: {error.strerror or error}"
        ) from None


def plot(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of trainings.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="PNG file to write.")] = Path(
        "training.png"
    ),
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Draw the loss, accuracy and clip fraction of trainings.

    For a single training, the clip fraction of each stage is drawn. Nothing in a file is run,
    whoever wrote it.
    """
    require_free(out, force)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    runs = {name: _read(folder) for name, folder in zip(names, folders, strict=True)}
    require_free(out, force)  # again: a file may have come to be there meanwhile
    draw(runs, out)
    print_lines([f"wrote {printable(str(out))}"])
