"""Files and folders that commands write: whose they are, and that one command writes at a time.

A file that is there already is replaced only with --force.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from nfspec.console import say
from nfspec.errors import InputError
from nfspec.files import TEMPORARY
from nfspec.wording import printable

LOCK = ".nfspec.lock"  # a file in a folder that a command is writing to

FORCE_HELP = "Replace existing files."


def require_free(path: Path, force: bool) -> None:
    """Refuse an output file that exists, unless it is a regular file and `force` is given."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} exists and is not a regular file; give another path")
    if not force:
        raise InputError(f"{path} exists, and is left as it is; replace it with --force")


def require_free_folder(path: Path, marker: str, force: bool) -> None:
    """Refuse an output folder that exists, unless it has `marker`, a file that this command writes,
    and `force` is given: all of it will be replaced."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not (path / marker).is_file():
        raise InputError(f"{path} exists and has no {marker} in it; give another path")
    if not force:
        raise InputError(f"{path} exists, and is left as it is; replace it with --force")


def require_own(folder: Path, marker: str, force: bool) -> None:
    """Refuse a folder with files in it but without `marker`, a file that this command writes."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"{folder} exists and is not a folder; give another path")
    if (
        force
        or (folder / marker).is_file()
        or all(path.name == LOCK or TEMPORARY.fullmatch(path.name) for path in folder.iterdir())
    ):
        return
    raise InputError(
        f"{folder} has files in it and no {marker}, so it is not an output of this command; "
        "give another folder, or write into it with --force"
    )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder, so that no other command writes there; make it if needed.

    A folder that was made here, and is still empty at the end, is deleted again.

    Raises:
        InputError: Another process has locked it.
        OSError: It cannot be made or written to.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("fcntl") is None:  # on Windows
        yield
        return
    try:
        descriptor = _lock(folder)
    except BaseException:
        _take_away(folder, made)
        raise
    try:
        yield
    finally:
        _unlock(folder, descriptor)
        _take_away(folder, made)


def _take_away(folder: Path, made: bool) -> None:
    if made:
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty


def _lock(folder: Path) -> int:
    """The descriptor of a locked file; the lock ends with this process, however that ends."""
    import fcntl  # there is none on Windows

    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise InputError(
                f"{folder}: {printable(holder) or 'another process'} is at work there; wait for "
                "it, or give another --out"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
            message = "its file system has no locks; see that no other command writes there"
            say(f"{folder}: {message}")
        # Whoever held it before may have deleted the file after this process had opened it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except OSError:
        _unlock(folder, descriptor)
        raise
    return descriptor


def _unlock(folder: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        (folder / LOCK).unlink()
    os.close(descriptor)
