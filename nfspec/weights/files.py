"""Reading the first bytes of a file, and writing a file whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from nfspec.errors import WeightError
from nfspec.files import opened

TEMPORARY = re.compile(r"\.nfspec-[0-9a-f]{16}\.tmp")  # names of files that are being written


def head(path: Path, count: int) -> bytes:
    """The first bytes of a file, fewer if it is shorter.

    Raises:
        WeightError: Unreadable or empty.
    """
    try:
        with opened(path) as file:
            found = file.read(count)
    except OSError as error:
        raise WeightError(f"{path}: cannot be read: {error.strerror}") from None
    if not found:
        raise WeightError(f"{path}: an empty file")
    return found


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block ends without error.

    Raises:
        WeightError: The file cannot be written; whatever was at `path` is still there.
    """
    temporary = path.parent / f".nfspec-{token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves files that others cannot read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a machine that loses power may keep the name alone
        temporary.replace(path)
    except OSError as error:
        raise WeightError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
