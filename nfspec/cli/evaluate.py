"""`nfspec evaluate`: how often a network is right on labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nfspec.cli.asking import Backend, Batch, Network, Runtime, Size, Weights, counting
from nfspec.cli.options import Changes, Original
from nfspec.console import as_csv, print_json, print_lines, say, table
from nfspec.files import write
from nfspec.language.overrides import parsed
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.training import evaluating
from nfspec.training.evaluating import Answers, Evaluation
from nfspec.training.plots import confusion as draw_confusion
from nfspec.training.plots import require_matplotlib
from nfspec.training.scores import interval, shares
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable


def evaluate(
    network: Network,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="Images, in the forms that nfspec train takes; several are taken together. "
            "Default: the images that the training held out.",
        ),
    ] = None,
    weights: Weights = None,
    backend: Backend = None,
    runtime: Runtime = None,
    size: Size = None,
    batch: Batch = 64,
    unfolded: Annotated[
        bool,
        typer.Option("--unfolded", help="Standardise the kernels again for every batch."),
    ] = False,
    original: Original = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show how often each class is right, too.")
    ] = False,
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write: a picture (PNG) of which class is taken for which."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write: the answer to each image, as CSV."),
    ] = None,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a network on labelled images.

    Images are resized and cropped as the spec says. If DATA has class folders in a folder val (or
    test), these images are used; if it has only class folders, all of its images. Images that
    cannot be read are named and left out.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    outputs = [path for path in (confusion, predictions) if path is not None]
    for path in outputs:
        require_free(path, force)
    if confusion is not None:
        require_matplotlib()
    result = evaluating.evaluate(
        network,
        data or None,
        weights_file(weights, say) if weights else None,
        backend=backend,
        runtime=runtime,
        size=size,
        batch=batch,
        folded=not unfolded,
        original=original,
        overrides=parsed(changes or []),
        say=lambda message: say(printable(message)),
        counting=counting,
    )
    if confusion is not None:
        require_free(confusion, force)  # again: a file may have come to be there meanwhile
        draw_confusion(result.answers.confusion(), result.answers.classes, confusion)
    if predictions is not None:
        require_free(predictions, force)
        write(predictions, as_csv(_rows(result.answers)))
    if as_json:
        print_json(_json(result, per_class))
    else:
        print_lines(_lines(result, per_class))
        for path in outputs:
            print_lines([f"wrote  {printable(str(path))}"])


def _lines(result: Evaluation, per_class: bool) -> list[str]:
    score = result.score
    return [
        f"{result.name}, {score.images:,} images at {result.size} px",
        *shares(score.top1, score.top5, score.images, len(result.answers.classes)),
        f"loss   {score.loss / score.images:.4f}",
        *(["", *_table(result.answers)] if per_class else ()),
    ]


def _table(answers: Answers) -> list[str]:
    """A line for each class: its images, how many are right, and what the others are taken for."""
    rows = [["class", "images", "right", "top-1", "most often taken for"]]
    for number, row in enumerate(answers.confusion()):
        name, right, total = answers.classes[number], int(row[number]), int(row.sum())
        wrong = row.copy()
        wrong[number] = 0
        other = answers.classes[int(wrong.argmax())] if wrong.any() else ""
        share = f"{right / total:.1%}" if total else "-"
        taken = f"{_cut(other)} ({wrong.max():,})" if other else ""
        rows.append([_cut(name), f"{total:,}", f"{right:,}", share, taken])
    return table(rows, "<>>><")


def _cut(name: str) -> str:
    """A name as it fits a column."""
    shown = printable(name)
    return shown if len(shown) <= 24 else f"{shown[:21]}..."


def _rows(answers: Answers) -> Iterator[list[Any]]:
    yield ["image", "label", "predicted", "probability", "right"]
    each = zip(answers.images, answers.labels, answers.found, answers.probability, strict=True)
    for image, label, found, probability in each:
        names = answers.classes[label], answers.classes[found]
        yield [image, *names, f"{probability:.6f}", int(label == found)]


def _json(result: Evaluation, per_class: bool) -> dict[str, Any]:
    score, answers = result.score, result.answers
    five = len(answers.classes) > 5
    data = {
        "images": score.images,
        "left_out": result.left_out,
        "size": result.size,
        "top1": score.top1 / score.images,
        "top1_interval": interval(score.top1, score.images),
        "top5": score.top5 / score.images if five else None,
        "top5_interval": interval(score.top5, score.images) if five else None,
        "loss": score.loss / score.images,
    }
    if per_class:
        matrix = answers.confusion()
        data["classes"] = [
            {"name": name, "images": int(row.sum()), "right": int(row[n])}
            for n, (name, row) in enumerate(zip(answers.classes, matrix, strict=True))
        ]
        np.fill_diagonal(matrix, 0)
        places = sorted(map(tuple, np.argwhere(matrix)), key=lambda place: -matrix[place])
        data["mistakes"] = [
            {
                "label": answers.classes[label],
                "answer": answers.classes[answer],
                "images": int(matrix[label, answer]),
            }
            for label, answer in places
        ]
    return data
