"""The images to train on and those to evaluate on, from what a user names."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from nfspec.data.lists import SUFFIXES as LISTS
from nfspec.data.lists import is_list, listed
from nfspec.data.pieces import Tell, untold
from nfspec.data.records import is_records, recorded
from nfspec.data.saved import SPLITS as SAVED_SPLITS
from nfspec.data.saved import is_saved, saved
from nfspec.data.shards import is_shard, sharded
from nfspec.data.sources import DIGITS, EXTENSIONS, Source, digits, folder, require_once, split
from nfspec.errors import InputError
from nfspec.wording import printable

Files = tuple[Path, ...]  # a folder or a file; or several files that hold images
SPLITS = (("train", "training"), ("val", "validation", "valid", "test"))


def open_sources(
    data: str | Path,
    held_out: float,
    seed: int,
    val: str | Path | None = None,
    classes: tuple[str, ...] = (),
    tell: Tell = untold,
) -> tuple[Source, Source]:
    """The images to train on, and those to evaluate on.

    Args:
        data: `digits`; a folder of class folders; a list, a CSV or Parquet file of paths and
            labels; a tar file as WebDataset has it, a TFRecord or ArrayRecord file, a folder of
            such files, or a pattern that they match; a dataset that Hugging Face's `save_to_disk`
            wrote; or a folder with one of these in `train` and `val` (or `validation`, `valid`,
            `test`). In a folder of files, some of which have such a word in their names, these
            words tell them apart.
        held_out: Share of each class that is kept for evaluation, where there is no such folder.
        seed: Decides which images those are.
        val: The images to evaluate on, in one of these forms; of `data` a share is held out if
            None.
        classes: Names of the classes, in the order of the outputs; those that are found if empty.
        tell: Called with a message now and then, where it takes long to find the images.

    Raises:
        InputError: There is nothing of that name, or it cannot be read; an empty class, too few
            images to hold some out, one file as an image of two classes or of both parts.
    """
    if str(data) == DIGITS:
        return split(digits(), held_out, seed)
    train, held = (_of_split(data, names) for names in SPLITS)
    if val is not None:
        held = _given(val)
    if held is None or (train is None and val is None):
        return split(_images(train or _given(data), classes, tell), held_out, seed)
    training = _images(train or _given(data), classes, tell)
    evaluated = _images(held, training.classes, tell)
    require_once((*training.names, *evaluated.names))
    return training, evaluated


def open_held_out(
    data: str | Path | Sequence[str | Path],
    held_out: float,
    seed: int,
    classes: tuple[str, ...],
    val: str | Path | None = None,
    tell: Tell = untold,
) -> Source:
    """The images to evaluate on alone, whose classes must be those of a training.

    Args:
        data: As of `open_sources`, or several of them, which are taken together. All images are
            taken if `held_out` is 1 and there are none in `val`.
        held_out, seed, val: As of `open_sources`.
        classes: Class of each output of the network; empty: the classes that are found.
        tell: As of `open_sources`.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    own = (val,) if val is not None else ()
    held = [_of_split(each, SPLITS[1]) for each in given] if not own else [_given(own[0])]
    if len(held) == 1 and held[0] is None and held_out < 1:
        return split(_images(_given(given[0]), classes, tell), held_out, seed)[1]
    groups = [there or _given(each) for there, each in zip(held, own or given, strict=True)]
    if all(_is_piecewise(path) for files in groups for path in files):
        groups = [tuple(path for files in groups for path in files)]
    sources: list[Source] = []
    for files in groups:
        known = classes or (sources[0].classes if sources else ())
        sources.append(_images(files, known, tell))
    images = _together(sources)
    if len(given) > 1:
        require_once(images.names)
    return images


def _together(sources: Sequence[Source]) -> Source:
    """The images of several sources, of the same classes, one source after another."""
    if len(sources) == 1:
        return sources[0]
    names = tuple(name for source in sources for name in source.names)
    ends = np.cumsum([len(source) for source in sources])

    def opened(number: int) -> AbstractContextManager[Image.Image]:
        which = int(np.searchsorted(ends, number, side="right"))
        return sources[which].opened(number - int(ends[which]) + len(sources[which]))

    # A function of this place alone: nothing is trained on several sources.
    labels = np.concatenate([source.labels for source in sources])
    return Source(sources[0].classes, labels, names, opened)


def _images(files: Files, classes: tuple[str, ...], tell: Tell) -> Source:
    """The images in a folder or a file, or in several files of one kind.

    Raises:
        InputError: There is no such file, it cannot be read, or they are of several kinds.
    """
    path, shown = files[0], printable(str(files[0]))
    if str(path) == DIGITS:
        return digits()
    if path.suffix.lower() in LISTS and not path.exists():
        raise InputError(f"{shown}: no such file; expected a list of images")
    if all(map(_is_piecewise, files)):
        if absent := [file for file in files if not file.exists()]:
            raise InputError(f"{printable(str(absent[0]))}: no such file")
        if all(map(is_shard, files)):
            return sharded(files, classes, tell)
        if all(map(is_records, files)):
            return recorded(files, classes, tell)
    if len(files) > 1:
        raise InputError(
            f"{shown} and {len(files) - 1} more: expected tar files alone, or record files alone"
        )
    if is_list(path):
        return listed(path, classes)
    if is_saved(path):
        return saved(path, classes)
    if (path / SAVED_SPLITS).is_file():
        raise InputError(f"{shown}: a dataset of several splits; name one of its folders")
    return folder(path, classes)


def _is_piecewise(path: Path) -> bool:
    """True for a file, by its name, that holds images one after another."""
    return (is_shard(path) or is_records(path)) and not path.is_dir()


def _given(data: str | Path) -> Files:
    """The folder or file that a user names, or the files in the folder or of the pattern.

    Raises:
        InputError: No file matches the pattern.
    """
    path = Path(data)
    if path.is_dir():
        return _pieces_in(path) or (path,)
    if path.exists() or not glob.has_magic(str(data)):
        return (path,)
    found = sorted(map(Path, glob.glob(str(data), recursive=True)))  # noqa: PTH207
    if not found:
        raise InputError(f"{printable(str(data))}: no file matches this pattern")
    return tuple(found)


def _pieces_in(folder: Path) -> Files:
    """The tar and record files in a folder, in order; none if there are folders of images, too."""
    below = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = tuple(filter(_is_piecewise, below))
    return () if files and any(map(_has_images, below)) else files


def _has_images(path: Path) -> bool:
    """True for a folder with an image in it, but not deeper, as in the folder of a training."""
    return path.is_dir() and any(each.suffix.lower() in EXTENSIONS for each in path.iterdir())


def _of_split(data: str | Path, names: tuple[str, ...]) -> Files | None:
    """The images of a split: in a folder called so, with folders or such files in it, as a class
    may be called so, too; or in files with this word in their names."""
    root = Path(data)
    if not root.is_dir():
        return None
    for part in (root / name for name in names):
        if part.is_dir() and (is_saved(part) or _pieces_in(part) or _has_folders(part)):
            return _given(part)
    files = _pieces_in(root)
    for name in names:
        named = [file for file in files if name in re.split(r"[^a-z]+", file.name.lower())]
        if named:
            return tuple(named)
    return None


def _has_folders(path: Path) -> bool:
    return any(each.is_dir() for each in path.iterdir())
