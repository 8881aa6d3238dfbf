"""Reading and writing files of weights, where every failure is a WeightError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nfspec.errors import WeightError
from nfspec.files import opened, replacing
from nfspec.wording import printable


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file that is not empty, once, to read its bytes.

    Raises:
        WeightError: Unreadable, whether at first or in the middle, or empty.
    """
    label = printable(str(path))
    try:
        with opened(path) as file:
            if not file.read(1):
                raise WeightError(f"{label}: an empty file")
            file.seek(0)
            yield file
    except OSError as error:
        raise WeightError(f"{label}: cannot be read: {error.strerror or error}") from None


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which takes the place of `path` when the block ends without an error.

    Raises:
        WeightError: The file cannot be written; whatever was at `path` is still there.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file
    except OSError as error:
        raise WeightError(f"{printable(str(path))}: {error.strerror or error}") from None
