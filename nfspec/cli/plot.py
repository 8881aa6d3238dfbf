"""`nfspec plot`: the logs of trainings as one picture and one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nfspec.console import bold, broken, print_json, print_lines, say, table
from nfspec.errors import InputError
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.training import logs
from nfspec.training.plots import plot as draw
from nfspec.wording import printable

LONGEST = 22  # characters of a name in the table


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the loss, accuracy and clip fraction of trainings.

    For a single training, the clip fraction of each stage is drawn. The table has the epochs that
    are done; loss and clip fraction, mean over the last tenth of the steps; loss and top-1 on
    held-out images, of the last evaluation; the highest top-1, with its epoch; and images a second,
    median over the steps. Nothing in a file is run, whoever wrote it.
    """
    require_free(out, force)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    runs = {name: _read(folder) for name, folder in zip(names, folders, strict=True)}
    require_free(out, force)  # again: a file may have come to be there meanwhile
    draw(runs, out)
    found = {name: logs.summary(entries) for name, entries in runs.items()}
    summaries = {name: each for name, each in found.items() if each}
    if as_json:
        print_json([{"name": name, **asdict(each)} for name, each in summaries.items()])
    else:
        print_lines([*_lines(summaries), "", f"wrote {printable(str(out))}"])


def _lines(summaries: Mapping[str, logs.Summary]) -> list[str]:
    rows = [["", "epochs", "loss", "clipped", "held out", "top-1", "best", "at", "images/s"]]
    for name, each in summaries.items():
        best = "" if each.best_epoch is None else f"{each.best_epoch:g}"
        rows.append(
            [
                name,
                f"{each.epochs:.4g}",
                f"{each.loss:.3f}",
                _share(each.clip_fraction),
                "" if each.held_out_loss is None else f"{each.held_out_loss:.3f}",
                _share(each.top1),
                _share(each.best_top1),
                best,
                f"{each.images_per_second:.4g}",
            ]
        )
    header, *lines = table(broken(rows, LONGEST), "<>>>>>>>>", gap=" ")
    return [bold(header), *lines]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
