"""Reading a file that may be anything, and writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
TEMPORARY = re.compile(r"\.nfspec-[0-9a-f]{16}\.tmp")  # the name of a file while it is written
# The errors of file systems without hard links, such as FAT.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
        name = KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"{name}, where a regular file was expected", str(path))
    return os.fdopen(descriptor, "rb")


def content(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises:
        OSError: It cannot be opened, is not a regular file, or is longer; `strerror` says which.
    """
    with opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"longer than {most:,} bytes", str(path))
    return data


@contextmanager
def replacing(path: Path, *, only_new: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block ends without an error.

    Args:
        path: The file to write.
        only_new: Refuse to replace a file, even one that appears while the block runs.

    Raises:
        OSError: The file cannot be written, and whatever was at `path` is still there; `filename`
            is `path`. FileExistsError if it exists and `only_new` is given.
    """
    temporary = path.parent / f".nfspec-{token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a machine that loses power may keep the name alone
        if only_new:
            _link(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def beside(path: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `path`. What the block writes there takes its place beside it, the
    file of `path`'s own name last, when the block ends without an error.

    Args:
        path: The file, or the folder, to write.
        replace: Replace files that exist, and folders by folders, but nothing else.

    Raises:
        OSError: A file cannot be written, or there is one that must not be replaced.
    """
    folder = path.parent / f".nfspec-{token_hex(8)}.tmp"
    try:
        folder.mkdir()
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise OSError(error.errno, reason, str(path)) from None
    try:
        yield folder
        made = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in made:
            to = path.with_name(file.name)
            same = to.is_dir() if file.is_dir() else to.is_file()
            if os.path.lexists(to) and not (replace and same and not to.is_symlink()):
                raise FileExistsError(errno.EEXIST, "exists, and is left as it is", str(to))
            for each in files_in(file):
                with each.open("rb") as opened_file:
                    os.fsync(opened_file.fileno())
        for file in made:
            to = path.with_name(file.name)
            if to.is_dir():  # no folder takes the place of one that has files
                to.replace(folder / f"{file.name}.before")
            file.replace(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_in(path: Path) -> list[Path]:
    """The files of a folder and of those in it, or the one file that a path is."""
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def _link(temporary: Path, path: Path) -> None:
    """Give a file a second name, which must be new, or copy it where there are no hard links."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with path.open("xb") as file:
            file.write(temporary.read_bytes())


def write(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all.

    Raises:
        OSError: The file cannot be written, and whatever was at `path` is still there; `filename`
            is `path`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def sweep(folder: Path) -> None:
    """Delete the temporary files of a process that was killed while it wrote in a folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def cache_folder(name: str) -> Path:
    """A folder for what can be made or fetched again: below `~/.cache/nfspec`, or below that of
    XDG_CACHE_HOME. It need not exist."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "nfspec", name)
