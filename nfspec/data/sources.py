"""Where labelled images come from: a folder of class folders, or scikit-learn's digits."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.errors import InputError
from nfspec.images import FORMATS, UNREADABLE, opened_image, with_channels
from nfspec.initialise import generator

DIGITS = "digits"
SPLITS = (("train",), ("val", "validation", "valid", "test"))
EXTENSIONS = frozenset(
    extension for extension, kind in Image.registered_extensions().items() if kind in FORMATS
)


@dataclass(frozen=True)
class Source:
    """Labelled images, by number.

    Attributes:
        classes: Names of the classes; a label is an index of it.
        labels: (images,), int64.
        names: What each image is called.
        opened: The image of a number, of any size and mode, to be used in a `with`; one of
            `nfspec.images.UNREADABLE` where it cannot be read.
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
            raise InputError(f"{self.names[number]}: cannot be read ({error})") from None

    def some(self, numbers: NDArray[np.int64]) -> Source:
        """The images of these numbers alone, in their order."""
        return Source(
            self.classes,
            self.labels[numbers],
            tuple(self.names[n] for n in numbers),
            lambda number: self.opened(int(numbers[number])),
        )


def open_sources(data: str | Path, held_out: float, seed: int) -> tuple[Source, Source]:
    """The images to train on, and those to evaluate on.

    Args:
        data: `digits`, a folder of class folders, or a folder with such folders in `train` and
            `val` (or `validation`, `valid`, `test`).
        held_out: Share of each class that is kept for evaluation, where there is no such folder.
        seed: Decides which images those are.

    Raises:
        InputError: No such folder, an empty class, two few images to hold some out.
    """
    if str(data) == DIGITS:
        return split(digits(), held_out, seed)
    root = Path(data)
    train, held = (_found(root, names) for names in SPLITS)
    if train is None or held is None:
        return split(folder(train or root), held_out, seed)
    training = folder(train)
    return training, folder(held, training.classes)


def open_held_out(data: str | Path, held_out: float, seed: int, classes: tuple[str, ...]) -> Source:
    """The images to evaluate on alone, whose classes must be those of a training.

    Args:
        data: As of `open_sources`. Of a folder of class folders all are taken if `held_out` is 1.
        held_out, seed: As of `open_sources`.
        classes: What each output of the network stands for; empty: whatever is found.
    """
    if str(data) == DIGITS:
        return split(digits(), held_out, seed)[1] if held_out < 1 else digits()
    found = folder(_found(Path(data), SPLITS[1]) or Path(data), classes)
    return (
        found if held_out == 1 or _found(Path(data), SPLITS[1]) else split(found, held_out, seed)[1]
    )


def _found(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of a split: one with folders in it, as a class may be called so, too."""
    folders = (root / name for name in names)
    return next((f for f in folders if f.is_dir() and any(p.is_dir() for p in f.iterdir())), None)


def split(source: Source, held_out: float, seed: int) -> tuple[Source, Source]:
    """Hold out a share of each class, at least one image of each.

    Raises:
        InputError: A class with one image alone.
    """
    training, held = [], []
    for label, name in enumerate(source.classes):
        of_class = np.flatnonzero(source.labels == label)
        if len(of_class) < 2:
            raise InputError(
                f'class "{name}": {len(of_class)} image in all, and one is held out; add images, '
                "or put those to evaluate on into a folder val beside train"
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
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    return Source(
        tuple(map(str, found.target_names)),
        np.asarray(found.target, np.int64),
        tuple(f"digits/{n}" for n in range(len(pixels))),
        lambda number: Image.fromarray(pixels[number]),
    )


def folder(root: Path, classes: tuple[str, ...] = ()) -> Source:
    """A folder with a folder for each class, whose images lie at any depth in it.

    Args:
        root: The folder. Names that begin with a dot are passed over.
        classes: What the folders must be called, in the order of their labels; otherwise they are
            in the order of their names.

    Raises:
        InputError: No such folder, no class folders, other classes, a class without images.
    """
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; expected one with a folder of images for each class")
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise InputError(
            f"{root}: no class folders in it; expected {root}/CLASS/IMAGE, a folder for each class"
        )
    if strangers := sorted(set(found) - set(classes or found)):
        raise InputError(
            f"{root}: no classes of the network: {', '.join(strangers)}; it knows "
            f"{', '.join(classes)}"
        )
    classes = classes or tuple(found)
    files = {name: _images(root / name) if name in found else [] for name in classes}
    if empty := [name for name in found if not files[name]]:
        raise InputError(
            f"{root}: no images in {', '.join(empty)}; put some there, or take the folder away"
        )
    paths = [path for name in classes for path in files[name]]
    labels = [label for label, name in enumerate(classes) for _ in files[name]]
    return Source(
        classes,
        np.asarray(labels, np.int64),
        tuple(map(str, paths)),
        lambda number: opened_image(paths[number]),
    )


def _images(root: Path) -> list[Path]:
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not path.is_dir()  # a link to nothing is named when it is to be read
    )
