"""Reading a file that may be anything, and writing a file whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from nfspec.errors import WeightError
from nfspec.files import opened
from nfspec.wording import printable

TEMPORARY = re.compile(r"\.nfspec-[0-9a-f]{16}\.tmp")  # names of files that are being written


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
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block ends without error.

    Raises:
        WeightError: The file cannot be written; whatever was at `path` is still there.
    """
    temporary = path.parent / f".nfspec-{token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a machine that loses power may keep the name alone
        temporary.replace(path)
    except OSError as error:
        label, reason = printable(str(path)), error.strerror or error
        raise WeightError(f"{label}: cannot be written: {reason}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
