"""Things other than a regular file that may have the name of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

# Each is asked for by an input that no reader takes.
IRREGULAR: Mapping[bytes, Callable[[Path], None]] = {
    b"\0nothing": lambda path: None,
    b"\0a folder": Path.mkdir,
    b"\0a link to itself": lambda path: path.symlink_to(path.name),
    b"\0a link to nothing": lambda path: path.symlink_to("nothing"),
    b"\0a device without end": lambda path: path.symlink_to("/dev/zero"),
    b"\0a named pipe": lambda path: os.mkfifo(path),
    b"\0a file that nobody may read": lambda path: path.touch(0),
}


def put(path: Path, data: bytes) -> None:
    """Write a file, or what an input asks for in its place."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    if data in IRREGULAR:
        IRREGULAR[data](path)
    else:
        path.write_bytes(data)


def is_same(path: Path, data: bytes) -> bool:
    """Tell whether the thing that `put` made is still there."""
    if data not in IRREGULAR:
        return path.is_file() and path.read_bytes() == data
    return os.path.lexists(path) == (data != b"\0nothing")
