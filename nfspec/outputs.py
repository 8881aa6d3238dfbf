"""Files and folders that commands write: existing ones are replaced only with --force."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from nfspec.errors import InputError

LOCK = ".nfspec.lock"  # a file in a folder that a command is writing to
# Errors of file systems without hard links, such as FAT.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

FORCE_HELP = "Replace what is there already."


def require_free(path: Path, force: bool) -> None:
    """Refuse an output file that exists, unless it is a regular file and `force` is given."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} exists and is not a regular file; give another path")
    if not force:
        raise InputError(f"{path} exists, and is left as it is; replace it with --force")


def require_own(folder: Path, marker: str, force: bool) -> None:
    """Refuse a folder with files in it that lacks `marker`, the file this command leaves there."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"{folder} exists and is not a folder; give another path")
    if (
        force
        or (folder / marker).is_file()
        or not any(path.name != LOCK for path in folder.iterdir())
    ):
        return
    raise InputError(
        f"{folder} has files in it and no {marker}, so it is not an output of this command; "
        "give another folder, or write into it with --force"
    )


@contextlib.contextmanager
def written(path: Path, force: bool) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`, and move it there when the block ends.

    A block that ends by an error leaves nothing behind.

    Raises:
        InputError: A file has come to be there meanwhile; it is left as it is.
        OSError: It cannot be moved there; `filename` is `path`.
    """
    temporary = path.with_name(f".nfspec-{token_hex(8)}{path.suffix}")
    try:
        yield temporary
        _place(temporary, path, force)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _place(temporary: Path, path: Path, force: bool) -> None:
    if force:
        temporary.replace(path)
        return
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with path.open("xb") as file:
                file.write(temporary.read_bytes())
    except FileExistsError:
        raise InputError(f"{path} exists, and is left as it is; replace it with --force") from None
