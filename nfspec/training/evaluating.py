"""One evaluation from its options to its score, as `nfspec evaluate` and Python callers run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import whole
from nfspec.data.batches import held_out
from nfspec.data.labels import are_numbers
from nfspec.data.opening import open_held_out
from nfspec.data.pieces import Tell
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source as Images
from nfspec.errors import InputError
from nfspec.training.folders import RUN
from nfspec.training.opening import LOGITS, Opened, Source
from nfspec.training.scores import Numbers, Score, outputs, probabilities, score
from nfspec.wording import few, printable

Step = Callable[[int], None]
Counting = Callable[[int], AbstractContextManager[Step]]


def silently(images: int) -> AbstractContextManager[Step]:
    """Show nothing of the progress."""
    return nullcontext(lambda done: None)


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a network to labelled images, one for each.

    Attributes:
        classes: Names of the classes.
        images: Names of the images.
        labels, found: Number of the label's class, and of the class with the highest output.
        probability: Probability that the network gives the class that it found.
    """

    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    found: NDArray[np.int64]
    probability: NDArray[np.float64]

    def confusion(self) -> NDArray[np.int64]:
        """Images of each class (row) that were taken for each class (column)."""
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(matrix, (self.labels, self.found), 1)
        return matrix


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The score of a network on labelled images.

    Attributes:
        name: The spec's name.
        size: Side of the images, px.
        left_out: Images that could not be read.
        score: Counts of right answers, and the loss, on the images that were read.
        answers: The answer to each image that was read.
    """

    name: str
    size: int
    left_out: int
    score: Score
    answers: Answers


def evaluate(
    variant: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
    weights: str | Path | None = None,
    *,
    backend: str | None = None,
    runtime: str | None = None,
    size: int | None = None,
    batch: int = 64,
    folded: bool = True,
    original: bool = False,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    say: Callable[[str], None] = lambda message: None,
    counting: Counting = silently,
) -> Evaluation:
    """Evaluate a network on labelled images, resized and cropped as its spec says.

    Args:
        variant: Folder of a training; a built-in spec, or the path of a .toml file; or a file that
            `nfspec.export` wrote, with logits among its outputs, for which no framework is
            imported.
        data: The images, in a form that `nfspec.data.opening` knows, or several of them, which are
            taken together; what the training held out if None.
        weights: File of weights, nfspec's, DeepMind's or timm's; the training's last if None.
        backend: Framework. If None, that which Keras runs on in this process, or else the
            training's, or else the first that is installed.
        runtime: Package of an exported file's runtime, such as "onnxruntime"; the format's own if
            None.
        size: Side of the images, px; the file's, or else the spec's test size, if None.
        batch: Images at a time, where an exported file takes any number.
        folded: Standardise the kernels once, before the first image.
        original: Resize by DeepMind's formulas: see `nfspec.preprocess`.
        overrides: Values that replace those of the spec, such as `{"input.test": 256}`.
        say: Called with a message for each image that is left out, and now and then where it takes
            long to find the images.
        counting: Called with the number of images; returns a context manager that gives a function
            to be called with the number of images that were done, after each batch.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    batch = whole("batch", batch, 1, "images")
    if size is not None:
        whole("size", size, 1, "px")
    path = Path(variant)
    if data is None and not path.is_dir():
        what = "an exported file" if path.is_file() and path.suffix != ".toml" else "a spec"
        raise InputError(f"{variant} is {what} and not a training; give DATA, too")
    opened = Source(variant, weights, backend, runtime, folded, overrides).open()
    opened.require_output(LOGITS)
    side = opened.side_for(size)
    images = _images(opened, data, say)
    where = _where(data or (opened.facts.data if opened.facts else ""))
    images = _spread(images, opened.classes)
    require_classes(images, opened.name, opened.classes, where)
    batch = opened.batch or min(batch, len(images))
    bad = []

    def left_out(message: str) -> None:
        bad.append(message)
        say(f"{message}; left out")

    given = held_out(images, Preprocessing(opened.how, side, original=original), batch, left_out)
    with counting(len(images)) as step:
        total, answers = _scored(outputs(opened.function(LOGITS), given, batch), images, step)
    if not total.images:
        raise InputError(f"{where}: none of the images can be read")
    return Evaluation(opened.name, side, len(bad), total, answers)


def _scored(
    found: Iterator[tuple[NDArray[np.float32], Numbers]], images: Images, step: Step
) -> tuple[Score, Answers]:
    """The score of outputs, and the answers that they are."""
    total = Score()
    numbers: list[int] = []
    best: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    shares: list[NDArray[np.float64]] = [np.zeros(0)]
    for each, places in found:
        total += score(each, images.labels[places])
        numbers.extend(map(int, places))
        best.append(each.argmax(1))
        shares.append(probabilities(each).max(1))
        step(len(places))
    names = tuple(images.names[n] for n in numbers)
    labels = images.labels[np.asarray(numbers, np.int64)]
    answers = np.concatenate(best).astype(np.int64), np.concatenate(shares)
    return total, Answers(images.classes, names, labels, *answers)


def _spread(images: Images, count: int) -> Images:
    """Images whose classes are called 0, 1 and so on, as those of a network of so many classes,
    even if there are no images of some of them."""
    names = set(images.classes)
    if len(names) == count or not are_numbers(names) or max(map(int, names)) >= count:
        return images
    numbers = np.asarray([int(name) for name in images.classes], np.int64)
    classes = tuple(str(n) for n in range(count))
    return replace(images, classes=classes, labels=numbers[images.labels])


def require_classes(held: Images, name: str, classes: int, data: str | Path) -> None:
    """Refuse images of more or fewer classes than a network tells apart.

    Raises:
        InputError: They are.
    """
    if len(held.classes) != classes:
        raise InputError(
            f"{data}: {len(held.classes)} classes, and {name} has {classes}; expected a folder, or "
            "rows of a list, for each class, with names in the order of the outputs"
        )


def _where(data: str | Path | Sequence[str | Path]) -> str:
    return printable(str(data) if isinstance(data, str | Path) else few(map(str, data), 3))


def _images(opened: Opened, data: str | Path | Sequence[str | Path] | None, tell: Tell) -> Images:
    """The images that were asked for, or those that a training held out."""
    facts, classes = opened.facts, opened.names
    if facts and data is None:
        return open_held_out(facts.data, facts.held_out, facts.seed, classes, facts.val, tell)
    assert data is not None
    several = [data] if isinstance(data, str | Path) else list(data)
    if trained := [each for each in several if Path(each, RUN).is_file()]:
        name = printable(str(trained[0]))
        raise InputError(
            f"{name}: a training, where a folder of images was expected. Evaluate one training at "
            f"a time: nfspec evaluate {name}; nfspec plot RUN RUN puts their curves side by side"
        )
    return open_held_out(data, 1.0, 0, classes, tell=tell)
