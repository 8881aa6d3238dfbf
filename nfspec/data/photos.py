"""Images to ask a network about, however they are given: files, folders, patterns, and images in
memory."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from nfspec.data.images import FORMATS
from nfspec.data.preprocessing import listed, opened
from nfspec.data.sources import Source, images_below
from nfspec.errors import InputError
from nfspec.wording import few, printable


def photos(given: Any) -> Source:
    """Images without labels, in the order given; what is in a folder is in the order of names.

    Args:
        given: One of these, or a sequence of them: the path of a file; a folder, of which all
            images at any depth are taken; a pattern such as `photos/*.jpg`, where no file has that
            name; and the images that `nfspec.preprocess` takes.

    Raises:
        InputError: A folder without images, a pattern that nothing matches, or nothing at all. A
            file that does not exist is named when it is to be read, as one that is damaged.
    """
    names: list[str] = []
    memory = Lock()
    opening: list[Callable[[], AbstractContextManager[Image.Image]]] = []
    for image in listed(given):
        if isinstance(image, str | Path):
            paths = list(_files(image))
            names += map(str, paths)
            opening += [partial(opened, path) for path in paths]
        else:
            names.append(f"image {len(names)}")
            opening.append(partial(_alone, memory, image))
    if not names:
        raise InputError("no images given; expected files, folders or patterns")
    labels = np.zeros(len(names), np.int64)
    return Source((), labels, tuple(names), lambda number: opening[number]())


@contextmanager
def _alone(memory: Lock, image: Any) -> Iterator[Image.Image]:
    """An image in memory, in one thread at a time: it may be there twice, and is decoded once."""
    with memory, opened(image) as found:
        yield found


def _files(given: str | Path) -> Iterable[Path]:
    """The files that a path stands for."""
    path = Path(given)
    with suppress(OSError):  # what cannot be looked at is named when it is to be read
        if path.is_dir():
            return _below(path)
        if path.exists():
            return [path]
    if not glob.has_magic(str(given)):
        return [path]
    matches = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207
    if not matches:
        raise InputError(f"{printable(str(given))}: no file matches this pattern")
    return [file for match in matches for file in (_below(match) if match.is_dir() else [match])]


def _below(folder: Path) -> list[Path]:
    """The images in a folder.

    Raises:
        InputError: There are none.
    """
    found = images_below(folder)
    if not found:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in folder.rglob("*.*"))
        inside = (
            f"; it has files of {few(kind for kind, _ in kinds.most_common())}" if kinds else ""
        )
        raise InputError(
            f"{printable(str(folder))}: no images in it{inside}. Images are {', '.join(FORMATS)}, "
            "by the endings of their names"
        )
    return found
