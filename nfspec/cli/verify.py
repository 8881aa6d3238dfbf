"""`nfspec verify`: an exported file against the reference, from the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.export import show
from nfspec.conformance.exporting import verify as verified
from nfspec.console import say


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of nfspec export.")],
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Random seed of the images.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove an exported file again, from what is in it alone.

    The spec is in the file's metadata, and the weights are the file's own. The network that they
    make is evaluated in float64, and the file is run in its runtime at several sizes of images.
    Exit status 1 if they differ.

    A graph of operators is evaluated. No other code is in such a file, and none is run, whoever
    wrote it.
    """
    proof = verified(file, seed=seed, progress=say)
    show(proof, as_json)
    if not proof.same:
        raise typer.Exit(1)
