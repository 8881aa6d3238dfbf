"""Labelled images that lie one after another in large files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.data.images import opened_image
from nfspec.data.labels import numbered
from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.wording import few, printable

MOST_IMAGE = 2**28  # bytes of an image file
SECONDS_BETWEEN_LINES = 10.0
Tell = Callable[[str], None]


def untold(message: str) -> None:
    """Say nothing of what takes long."""


@dataclass(frozen=True)
class Piece:
    """An image in a large file.

    Attributes:
        name: Its name in the file, or its number.
        start, size: Its place there, bytes.
        label: Its label as it is written; None where there is none.
    """

    name: str
    start: int
    size: int
    label: str | None


@dataclass(frozen=True, eq=False)
class Pieces:
    """The places of images in files, and a function that opens one by its number.

    Attributes:
        files: The files.
        places: (images, 3), int64: number of the file, first byte, and bytes.
    """

    files: tuple[Path, ...]
    places: NDArray[np.int64]

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        file, start, size = map(int, self.places[number])
        with opened(self.files[file]) as whole:
            whole.seek(start)
            data = whole.read(size)
        if len(data) < size:
            raise ValueError("the file is shorter than it was")
        return opened_image(data)


def source_of(
    files: Sequence[Path],
    found: Iterable[tuple[int, Piece]],
    classes: tuple[str, ...],
    expected: str,
    tell: Tell = untold,
) -> Source:
    """The images in files.

    Args:
        files: The files.
        found: The number of a file with an image in it, for each image.
        classes: As of `nfspec.data.labels.numbered`.
        expected: Words on the place of a label, for errors.
        tell: Called with the number of images so far, every ten seconds.

    Raises:
        InputError: There are none, one has no label or too many bytes, or one of other classes.
    """
    shown = [printable(str(file)) for file in files]
    names: list[str] = []
    labels: list[str] = []
    places: list[tuple[int, int, int]] = []
    bare: list[str] = []
    told = time.monotonic()
    for file, piece in found:
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            tell(f"{shown[file]}: {len(names):,} images so far")
        name = f"{shown[file]}: {printable(piece.name)}"
        if piece.size > MOST_IMAGE:
            raise InputError(
                f"{name}: {piece.size:,} bytes; expected an image of at most {MOST_IMAGE:,}"
            )
        if piece.label is None:
            bare.append(name)
            continue
        names.append(f"{files[file]}/{piece.name}")
        labels.append(piece.label)
        places.append((file, piece.start, piece.size))
    if bare:
        noun = "image" if len(bare) == 1 else "images"
        raise InputError(f"no label for {len(bare):,} {noun}: {few(bare, 3)}; expected {expected}")
    if not places:
        raise InputError(f"{few(shown, 3)}: no images in it; expected {expected}")
    named, numbers = numbered(labels, classes, lambda n: printable(names[n]))
    table = np.asarray(places, np.int64)
    return Source(named, numbers, tuple(names), Pieces(tuple(files), table))
