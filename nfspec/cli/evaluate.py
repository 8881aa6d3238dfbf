"""`nfspec evaluate`: how often a network is right on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nfspec.cli.options import MAX_IMAGES, MAX_SIDE, Changes
from nfspec.console import print_json, print_lines, say
from nfspec.language.overrides import parsed
from nfspec.training import evaluating
from nfspec.training.evaluating import Evaluation
from nfspec.training.scores import interval, shares
from nfspec.wording import printable


def evaluate(
    variant: Annotated[str, typer.Argument(help="A folder that `nfspec train` wrote, or a spec.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help='A folder of images, or "digits". Default: the images that the training held out.',
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of weights. Default: the last ones of the training.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="jax, torch or tensorflow. Default: the training's.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_SIDE, help="Side of the images, px. Default: the spec's test size."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_IMAGES, help="Images in a batch.")] = 64,
    unfolded: Annotated[
        bool,
        typer.Option("--unfolded", help="Standardise the kernels again for every batch."),
    ] = False,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a network on labelled images.

    Images are resized and cropped as the spec says. If DATA has class folders in a folder val (or
    test), these images are used; if it has only class folders, all of its images. Images that
    cannot be read are named and left out.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    result = evaluating.evaluate(
        variant,
        data,
        weights,
        backend=backend,
        size=size,
        batch=batch,
        folded=not unfolded,
        overrides=parsed(changes or []),
        say=lambda message: say(printable(message)),
    )
    if as_json:
        print_json(_json(result))
    else:
        score = result.score
        print_lines(
            [
                f"{result.name}, {score.images:,} images at {result.size} px",
                *shares(score.top1, score.top5, score.images),
                f"loss   {score.loss / score.images:.4f}",
            ]
        )


def _json(result: Evaluation) -> dict[str, Any]:
    score = result.score
    return {
        "images": score.images,
        "left_out": result.left_out,
        "size": result.size,
        "top1": score.top1 / score.images,
        "top1_interval": interval(score.top1, score.images),
        "top5": score.top5 / score.images,
        "top5_interval": interval(score.top5, score.images),
        "loss": score.loss / score.images,
    }
