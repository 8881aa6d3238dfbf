"""Answers of a network to images without labels: classes with probabilities, and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import flag, whole
from nfspec.data.batches import held_out
from nfspec.data.classes import IMAGENET, Classes, imagenet, named, read_classes, unnamed
from nfspec.data.photos import photos
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source as Images
from nfspec.errors import InputError
from nfspec.training.folders import read_facts
from nfspec.training.opening import LOGITS, POOL, Opened, Source
from nfspec.training.scores import outputs, probabilities
from nfspec.wording import printable

OnBad = Callable[[str], None]


@dataclass(frozen=True)
class Guess:
    """A class that an image may be of.

    Attributes:
        index: Number of the class: the place of its output.
        name: Name of the class.
        synset: WordNet's identifier of the name, of ImageNet's classes; otherwise empty.
        probability: Probability that the network gives the class.
    """

    index: int
    name: str
    synset: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The classes that a network finds most probable for an image, the most probable one first.

    Attributes:
        image: Path of the image, or its number, where it has no path: `image 0`.
        guesses: The classes.
    """

    image: str
    guesses: tuple[Guess, ...]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vectors that a network has of images before its classifier.

    Attributes:
        images: Paths of the images.
        vectors: (images, channels), float32: the mean over the last feature map.
    """

    images: tuple[str, ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A network, and the images that it is asked about.

    Attributes:
        opened: The network.
        images: The images.
        size: Side of the images, px.
        original: Resize by DeepMind's formulas.
        batch: Images at a time.
        on_bad: Called with what is wrong with an image, which is left out; if None, the first such
            image is an error.
    """

    opened: Opened
    images: Images
    size: int
    original: bool
    batch: int
    on_bad: OnBad | None

    def answers(self, output: str) -> Iterator[tuple[NDArray[np.float32], list[str]]]:
        """An output for the images, batch after batch, with the names of the images.

        Raises:
            InputError: No image can be read, or an output is not a finite number.
        """
        preparation = Preprocessing(self.opened.how, self.size, original=self.original)
        given = held_out(self.images, preparation, self.batch, self.on_bad or _refuse)
        seen = False
        for found, numbers in outputs(self.opened.function(output), given, self.batch):
            names = [self.images.names[n] for n in numbers]
            finite = np.isfinite(found).all(axis=1)
            if not finite.all():
                name = printable(names[int(finite.argmin())])
                raise InputError(
                    f"{name}: the network's output is not a finite number; its "
                    "weights are damaged, or are those of another network"
                )
            seen = True
            yield found, names
        if not seen:
            raise InputError("none of the images can be read")


def _refuse(message: str) -> None:
    raise InputError(message)


def ask(
    source: Source,
    images: Any,
    output: str,
    *,
    size: int | None,
    batch: int,
    original: bool,
    on_bad: OnBad | None,
) -> Question:
    """Find a network and images, and check that the one can be asked about the others.

    Args:
        source: The network.
        images: As of `nfspec.data.photos.photos`.
        output: The output that will be asked for.
        size, batch, original, on_bad: As of `predict`.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    whole("batch", batch, 1, "images")
    if size is not None:
        whole("size", size, 1, "px")
    flag("original", original)
    opened = source.open()
    opened.require_output(output)
    side = opened.side_for(size)
    found = photos(images)
    batch = opened.batch or min(batch, len(found))
    return Question(opened, found, side, original, batch, on_bad)


def classes_of(opened: Opened, given: str | Path | Sequence[str] | None) -> Classes:
    """Names for a network's classes.

    Args:
        opened: The network.
        given: The names, a text file with a name on each line, or the folder of a training, whose
            names they are. If None: those of the training; ImageNet's for 1,000 classes; numbers.

    Raises:
        InputError: They cannot be read, or are more or fewer than the network has classes.
    """
    count = opened.classes
    if given is None and opened.names:
        return named(opened.names, count, "the training" if opened.facts else "the file")
    if given is None:
        return imagenet() if count == IMAGENET else unnamed(count)
    if not isinstance(given, str | Path):
        return named(given, count, "classes")
    if Path(given).is_dir():
        return named(read_facts(Path(given)).classes, count, printable(str(given)))
    return read_classes(given, count)


def predictions(question: Question, classes: Classes, top: int) -> Iterator[Prediction]:
    """The most probable classes of each image that can be read, in the order of the images.

    Args:
        question: The network and the images.
        classes: Names of its classes.
        top: Classes for each image, at most all.

    Raises:
        InputError: As of `Question.answers`.
    """
    synsets = classes.synsets or ("",) * len(classes.names)
    for found, names in question.answers(LOGITS):
        shares = probabilities(found)
        # Where several are equally probable, the first comes first.
        order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        for name, row, best in zip(names, shares, order, strict=True):
            guesses = (
                Guess(n, classes.names[n], synsets[n], float(row[n])) for n in map(int, best)
            )
            yield Prediction(name, tuple(guesses))


def predict(
    network: Any,
    images: Any,
    weights: str | Path | None = None,
    *,
    top: int = 5,
    classes: str | Path | Sequence[str] | None = None,
    backend: str | None = None,
    runtime: str | None = None,
    size: int | None = None,
    batch: int = 16,
    original: bool = False,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    on_bad: OnBad | None = None,
) -> list[Prediction]:
    """The classes of images, with probabilities.

    Args:
        network: Folder of a training; a built-in spec, or the path of a .toml file; a file that
            `nfspec.export` wrote; or a model that `nfspec.compile` returned.
        images: One of these, or a sequence: the path of a file, a folder, a pattern such as
            `photos/*.jpg`, the bytes of a file, a PIL image, an array of uint8, (H, W, C).
        weights: File of weights, nfspec's, DeepMind's or timm's; the training's last if None.
        top: Classes for each image, at most all.
        classes: Names of the classes, a text file with a name on each line, or the folder of a
            training. If None: the training's own; for other networks of 1,000 classes ImageNet's.
        backend: Framework. If None, that which Keras runs on in this process, or else the
            training's, or else the first that is installed.
        runtime: Package of an exported file's runtime, such as "onnxruntime"; the format's own if
            None.
        size: Side of the images, px; the file's, or else the spec's test size, if None.
        batch: Images at a time, where an exported file takes any number.
        original: Resize by DeepMind's formulas: see `nfspec.preprocess`.
        overrides: Values that replace those of the spec, such as `{"head.classes": 10}`.
        on_bad: Called with a message for each image that cannot be read, which is left out. If
            None, such an image is an error.

    Returns:
        A `Prediction` for each image: `image`, its path, and `guesses`, each with `index`, `name`,
        `synset` and `probability`.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    whole("top", top, 1, "classes")
    source = Source(network, weights, backend, runtime, overrides=overrides)
    question = ask(source, images, LOGITS, size=size, batch=batch, original=original, on_bad=on_bad)
    return list(predictions(question, classes_of(question.opened, classes), top))


def embed(
    network: Any,
    images: Any,
    weights: str | Path | None = None,
    *,
    backend: str | None = None,
    runtime: str | None = None,
    size: int | None = None,
    batch: int = 16,
    original: bool = False,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    on_bad: OnBad | None = None,
) -> Embeddings:
    """The vector that a network has of each image before its classifier.

    It is the tap `pool`, the mean of the last feature map over height and width. An exported file,
    and a compiled model, need that output.

    Args:
        network, images, weights: As of `predict`.
        backend, runtime, size, batch, original, overrides, on_bad: As of `predict`.

    Returns:
        `Embeddings`: `images`, the paths, and `vectors`, float32, a row for each.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    source = Source(network, weights, backend, runtime, overrides=overrides)
    return embedded(
        ask(source, images, POOL, size=size, batch=batch, original=original, on_bad=on_bad)
    )


def embedded(question: Question, step: Callable[[int], None] = lambda images: None) -> Embeddings:
    """The embeddings of a question's images.

    Args:
        question: The network and the images.
        step: Called with the number of images that were done, after each batch.
    """
    names: list[str] = []
    vectors = []
    for found, each in question.answers(POOL):
        names += each
        vectors.append(found)
        step(len(each))
    return Embeddings(tuple(names), np.concatenate(vectors))
