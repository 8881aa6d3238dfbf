"""`nfspec plot`: the logs of trainings in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfspec import logs
from nfspec.errors import InputError
from nfspec.plots import plot as draw


def plot(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders that `nfspec train` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("training.png"),
) -> None:
    """Draw the loss, accuracy and clip fraction of trainings.

    Of one training, the clip fraction of each stage.
    """
    for folder in folders:
        if not (folder / "log.jsonl").is_file():
            raise InputError(f"{folder}: no training in it (no log.jsonl)")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    runs = {
        name: logs.read(folder / "log.jsonl") for name, folder in zip(names, folders, strict=True)
    }
    draw(runs, out)
    typer.echo(f"wrote {out}")
