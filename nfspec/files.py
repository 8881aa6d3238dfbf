"""Reading files that may be anything."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def opened(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes; anything else is refused and never waited for.

    Raises:
        OSError: It cannot be opened, or is not a regular file; `strerror` says which.
    """
    # O_NONBLOCK: to open a named pipe would otherwise wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        what = KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"{what}, where a regular file was expected", str(path))
    return os.fdopen(descriptor, "rb")


def content(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises:
        OSError: It cannot be opened, is not a regular file, or is longer; `strerror` says which.
    """
    with opened(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"longer than {most:,} bytes", str(path))
    return found
