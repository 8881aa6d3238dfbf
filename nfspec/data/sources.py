"""Labelled images, by number: of a folder of class folders, or scikit-learn's digits."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.data.images import FORMATS, UNREADABLE, cause, opened_image, with_channels
from nfspec.errors import InputError
from nfspec.plan.initialise import generator
from nfspec.wording import few, printable

DIGITS = "digits"
EXTENSIONS = frozenset(
    extension for extension, kind in Image.registered_extensions().items() if kind in FORMATS
)


@dataclass(frozen=True)
class Source:
    """Labelled images, by number.

    Attributes:
        classes: Names of the classes; a label is an index of it.
        labels: (images,), int64.
        names: Name of each image.
        opened: The image of a number, of any size and mode, to be used in a `with`; one of
            `nfspec.data.images.UNREADABLE` where it cannot be read.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    opened: Callable[[int], AbstractContextManager[Image.Image]]

    def __len__(self) -> int:
        return len(self.labels)

    def keys(self) -> list[str]:
        """The names of the images, without the folder that all are in."""
        root = os.path.commonpath(self.names)
        return [os.path.relpath(name, root) for name in self.names]

    def image(self, number: int, channels: int) -> Image.Image:
        """An image as RGB or, of one channel, grey.

        Raises:
            InputError: It cannot be read.
        """
        try:
            with self.opened(number) as image:
                return with_channels(image, channels)
        except UNREADABLE as error:
            raise InputError(f"{self.names[number]}: cannot be read ({cause(error)})") from None

    def some(self, numbers: NDArray[np.int64]) -> Source:
        """The images of these numbers alone, in their order."""
        return Source(
            self.classes,
            self.labels[numbers],
            tuple(self.names[n] for n in numbers),
            _Some(self.opened, numbers),
        )


# Functions that open images by number. They are classes, so that a process can be sent one.


@dataclass(frozen=True)
class Files:
    """Opens image files."""

    paths: tuple[str, ...]

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        return opened_image(self.paths[number])


@dataclass(frozen=True, eq=False)
class _Some:
    """Opens some of the images of another, by their place among them."""

    opened: Callable[[int], AbstractContextManager[Image.Image]]
    numbers: NDArray[np.int64]

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        return self.opened(int(self.numbers[number]))


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Opens grey images in memory."""

    pixels: NDArray[np.uint8]  # (images, height, width)

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        return Image.fromarray(self.pixels[number])


def split(source: Source, held_out: float, seed: int) -> tuple[Source, Source]:
    """Hold out a share of each class, at least one image of each.

    Raises:
        InputError: A class with one image alone.
    """
    training, held = [], []
    for label, name in enumerate(source.classes):
        of_class = np.flatnonzero(source.labels == label)
        if not len(of_class):  # a class that was named, and has no images here
            continue
        if len(of_class) < 2:
            raise InputError(
                f'class "{printable(name)}": {len(of_class)} image in all, and one is held out; '
                "add images, or put those to evaluate on into a folder val beside train"
            )
        mixed = generator(seed, f"split/{name}").permutation(of_class)
        count = min(max(1, round(held_out * len(mixed))), len(mixed) - 1)
        held.append(mixed[:count])
        training.append(mixed[count:])
    return (
        source.some(np.sort(np.concatenate(training))),
        source.some(np.sort(np.concatenate(held))),
    )


def digits() -> Source:
    """1,797 scans of handwritten digits, 8 x 8 px, that come with scikit-learn.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        message = "digits come with scikit-learn, which is not installed; run: "
        raise InputError(f"{message}pip install scikit-learn") from None
    loaded = load_digits()
    pixels = np.round(loaded.images * (255 / 16)).astype(np.uint8)
    return Source(
        tuple(map(str, loaded.target_names)),
        np.asarray(loaded.target, np.int64),
        tuple(f"digits/{n}" for n in range(len(pixels))),
        _Pixels(pixels),
    )


def folder(root: Path, classes: tuple[str, ...] = ()) -> Source:
    """A folder with a folder for each class, whose images lie at any depth in it.

    Args:
        root: The folder. Names that begin with a dot are passed over. A class may be a link to a
            folder elsewhere.
        classes: Names that the folders must have, in the order of their labels; otherwise they are
            in the order of their names. Unicode's ways to write a letter count as the same.

    Raises:
        InputError: No such folder, no class folders, other classes, a class without images, two
            classes that are one folder or look the same, or one file as two images.
    """
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise InputError(
            f"{root}: {what}; expected one with a folder of images for each class, a list of "
            "images (.csv, .parquet), or .tar, .tfrecord or .array_record files"
        )
    present = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not present:
        raise InputError(
            f"{root}: no class folders in it; expected {root}/CLASS/IMAGE, a folder for each class"
        )
    _require_unlike(root, present)
    classes = classes or tuple(present)
    folders = {_form(name): root / name for name in present}
    if strangers := sorted(folders.keys() - set(map(_form, classes))):
        raise InputError(
            f"{root}: the network has no class {few(strangers)}; it has {few(classes)}"
        )
    files = [images_below(folders[f]) if (f := _form(name)) in folders else [] for name in classes]
    if empty := [
        name for name, of in zip(classes, files, strict=True) if not of and _form(name) in folders
    ]:
        raise InputError(f"{root}: no images in {few(empty)}; put some there, or remove the folder")
    paths = [path for of_class in files for path in of_class]
    labels = [label for label, of_class in enumerate(files) for _ in of_class]
    names = tuple(map(str, paths))
    require_once(names)
    return Source(classes, np.asarray(labels, np.int64), names, Files(names))


def _form(name: str) -> str:
    """A name in Unicode's composed form: macOS writes an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def _require_unlike(root: Path, names: list[str]) -> None:
    """Require that classes are different folders, whose names can be told apart."""
    spelt: dict[str, str] = {}
    folders: dict[tuple[int, int], str] = {}
    for name in names:
        other = spelt.setdefault(_form(name), name)
        if other != name:
            raise InputError(
                f"{root}: the classes {other!a} and {name!a} are one name in two "
                "spellings of Unicode; rename one of them, or put their images together"
            )
        about = (root / name).stat()
        other = folders.setdefault((about.st_dev, about.st_ino), name)
        if other != name:
            raise InputError(
                f"{root}: the classes {printable(other)} and {printable(name)} are one folder by "
                "a link, so that each image would have two labels; remove one of them"
            )


def require_once(names: tuple[str, ...]) -> None:
    """Require that no file is two images, by a hard or soft link, and no part of a file is."""
    seen: dict[tuple[int, int] | tuple[str, str], str] = {}  # device and inode to the first name
    inside = cache(os.path.realpath)
    for name in names:
        try:
            about = os.stat(name)  # noqa: PTH116
            key: tuple[int, int] | tuple[str, str] = about.st_dev, about.st_ino
        except (OSError, ValueError):  # in a larger file; what is missing is named when it is read
            outer, inner = os.path.split(name)
            key = inside(outer), inner
        other = seen.get(key)
        if other is not None:
            twice = f"{printable(other)} and {printable(name)} are one file by a link"
            twice = f"{printable(name)} is there twice" if other == name else twice
            raise InputError(
                f"{twice}; an image has one label and is either trained on or held out, so remove "
                "one of them"
            )
        seen[key] = name


def images_below(root: Path) -> list[Path]:
    """Image files at any depth in a folder, by the endings of their names, in order."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not path.is_dir()  # a link to nothing is named when it is to be read
    )
