"""The images to train on and those to evaluate on, from what a user names."""

from __future__ import annotations

from pathlib import Path

from nfspec.data.lists import SUFFIXES as LISTS
from nfspec.data.lists import is_list, listed
from nfspec.data.sources import DIGITS, Source, digits, folder, require_once, split
from nfspec.errors import InputError
from nfspec.wording import printable

SPLITS = (("train",), ("val", "validation", "valid", "test"))


def open_sources(
    data: str | Path,
    held_out: float,
    seed: int,
    val: str | Path | None = None,
    classes: tuple[str, ...] = (),
) -> tuple[Source, Source]:
    """The images to train on, and those to evaluate on.

    Args:
        data: `digits`; a folder of class folders, or a folder with such folders in `train` and
            `val` (or `validation`, `valid`, `test`); or a list, a CSV or Parquet file of paths and
            labels.
        held_out: Share of each class that is kept for evaluation, where there is no such folder.
        seed: Decides which images those are.
        val: Folder of class folders, or a list, of the images to evaluate on; of `data` a share is
            held out if None.
        classes: Names of the classes, in the order of the outputs; those that are found if empty.

    Raises:
        InputError: No such folder or list, an empty class, too few images to hold some out, one
            file as an image of two classes or of both parts.
    """
    if str(data) == DIGITS:
        return split(digits(), held_out, seed)
    root = Path(data)
    train, held = (_first_folder(root, names) for names in SPLITS)
    if val is not None:
        held = Path(val)
    if held is None or (train is None and val is None):
        return split(_images(train or root, classes), held_out, seed)
    training = _images(train or root, classes)
    evaluated = _images(held, training.classes)
    require_once((*training.names, *evaluated.names))
    return training, evaluated


def open_held_out(
    data: str | Path,
    held_out: float,
    seed: int,
    classes: tuple[str, ...],
    val: str | Path | None = None,
) -> Source:
    """The images to evaluate on alone, whose classes must be those of a training.

    Args:
        data: As of `open_sources`. Of a folder of class folders, and of a list, all are taken if
            `held_out` is 1.
        held_out, seed, val: As of `open_sources`.
        classes: Class of each output of the network; empty: the classes that are found.
    """
    if str(data) == DIGITS:
        return split(digits(), held_out, seed)[1] if held_out < 1 else digits()
    own = Path(val) if val is not None else _first_folder(Path(data), SPLITS[1])
    images = _images(own or Path(data), classes)
    return images if held_out == 1 or own else split(images, held_out, seed)[1]


def _images(path: Path, classes: tuple[str, ...] = ()) -> Source:
    if is_list(path):
        return listed(path, classes)
    if path.suffix.lower() in LISTS and not path.exists():
        raise InputError(f"{printable(str(path))}: no such file; expected a list of images")
    return folder(path, classes)


def _first_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of a split: one with folders in it, as a class may be called so, too."""
    folders = (root / name for name in names)
    return next((f for f in folders if f.is_dir() and any(p.is_dir() for p in f.iterdir())), None)
