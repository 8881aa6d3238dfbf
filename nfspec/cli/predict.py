"""`nfspec predict`: the classes of images, with probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Annotated, Any

import typer

from nfspec.cli.asking import (
    Backend,
    Bad,
    Batch,
    Network,
    Photos,
    Runtime,
    Size,
    Weights,
    counting,
)
from nfspec.cli.options import Changes, Original
from nfspec.console import WIDTH, as_csv, print_json, print_text, say
from nfspec.data.classes import Classes
from nfspec.errors import InputError
from nfspec.language.overrides import parsed
from nfspec.training.opening import LOGITS, Source
from nfspec.training.predicting import Prediction, Question, ask, classes_of, predictions
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable

MAX_CLASSES = 1_000_000
COLUMNS = ("image", "rank", "index", "name", "synset", "probability")


def predict(
    network: Network,
    images: Photos,
    weights: Weights = None,
    top: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_CLASSES, metavar="N", help="Classes for each image, at most all."
        ),
    ] = 5,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes: a text file with a name on each line, or the folder of a "
            "training. Default: the training's; for other networks of 1,000 classes ImageNet's.",
        ),
    ] = None,
    backend: Backend = None,
    runtime: Runtime = None,
    size: Size = None,
    batch: Batch = 16,
    original: Original = False,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    table: Annotated[bool, typer.Option("--csv", help=f"Print CSV: {', '.join(COLUMNS)}.")] = False,
) -> None:
    """Name the classes of images, with probabilities.

    Images are resized and cropped as they are in evaluation. In a folder, all images at any depth
    are taken. An image that cannot be read is named and left out; the exit status is then 1.

    \b
      nfspec predict runs/nfnet-f0-photos-torch holiday/
      nfspec predict nfnet-f0 --weights f0.npz a.jpg b.jpg --top 1
      nfspec predict net.onnx 'photos/*.jpg' --csv > answers.csv

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    if as_json and table:
        raise InputError("--json and --csv: give one of them")
    bad = Bad()
    weights = weights_file(weights, say) if weights else None
    source = Source(network, weights, backend, runtime, overrides=parsed(changes or []))
    question = ask(source, images, LOGITS, size=size, batch=batch, original=original, on_bad=bad)
    names = classes_of(question.opened, classes)
    found = predictions(question, names, top)
    if as_json:
        _print_json(question, names, found, bad)
    else:
        # Nothing is printed before the first answer, so that an error leaves no results behind.
        first = next(found)
        print_text(_heading(question, names) if not table else as_csv([COLUMNS]).rstrip("\n"))
        for each in chain([first], found):
            print_text(_text(each) if not table else as_csv(_rows(each)).rstrip("\n"))
    bad.end()


def _heading(question: Question, names: Classes) -> str:
    opened = question.opened
    known = f"names of classes: {printable(names.source)}"
    if not names.source:
        known = "classes without names, which --classes FILE gives"
    return f"{opened.name} at {question.size} px on {opened.runs_on}; {known}"


def _text(found: Prediction) -> str:
    lines = ["", printable(found.image)]
    for guess in found.guesses:
        share = f"  {guess.probability:7.2%}  "
        name = printable(guess.name)
        room = WIDTH - len(share)
        lines.append(share + (name if len(name) <= room else f"{name[: room - 3]}..."))
    return "\n".join(lines)


def _rows(found: Prediction) -> Iterator[list[Any]]:
    for rank, guess in enumerate(found.guesses, 1):
        name = [guess.index, guess.name, guess.synset]
        yield [found.image, rank, *name, f"{guess.probability:.6f}"]


def _print_json(question: Question, names: Classes, found: Iterator[Prediction], bad: Bad) -> None:
    images = []
    with counting(len(question.images)) as step:
        for each in found:
            images.append({"image": each.image, "classes": [asdict(g) for g in each.guesses]})
            step(1)
    print_json(
        {
            "network": question.opened.name,
            "runs_on": question.opened.runs_on,
            "size": question.size,
            "names": names.source,
            "images": images,
            "left_out": bad.messages,
        }
    )
