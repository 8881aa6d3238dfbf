"""`nfspec evaluate`: how often a network is right on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nfspec.backends.exporters.formats import is_exported
from nfspec.cli.options import MAX_IMAGES, MAX_SIDE, Changes
from nfspec.console import print_json, print_lines, say
from nfspec.errors import InputError
from nfspec.language.overrides import parsed
from nfspec.training import evaluating
from nfspec.training.evaluating import Evaluation
from nfspec.training.scores import interval, shares
from nfspec.wording import printable


def evaluate(
    variant: Annotated[
        str,
        typer.Argument(
            help="A folder that `nfspec train` wrote, a spec, or a file of `nfspec export`."
        ),
    ],
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
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Runtime of an exported file: onnxruntime or openvino. Default: its format's own."
        ),
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
    how: dict[str, Any] = {
        "size": size,
        "batch": batch,
        "say": lambda message: say(printable(message)),
    }
    if is_exported(Path(variant)):
        others = {"--weights": weights, "--backend": backend, "--unfolded": unfolded}
        _refuse(variant, {**others, "--set": changes})
        if data is None:
            raise InputError(f"{variant} is an exported file; give DATA, too")
        result = evaluating.evaluate_file(variant, data, runtime=runtime, **how)
    else:
        if runtime is not None:
            raise InputError(f"--runtime is for exported files; {variant} is none")
        result = evaluating.evaluate(
            variant,
            data,
            weights,
            backend=backend,
            folded=not unfolded,
            overrides=parsed(changes or []),
            **how,
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


def _refuse(file: str, options: dict[str, Any]) -> None:
    """Refuse options that an exported file has no use for.

    Raises:
        InputError: One is given.
    """
    given = [option for option, value in options.items() if value]
    if given:
        raise InputError(f"{given[0]}: {file} is an exported file, in which this is settled")


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
