"""What a command may write to: an existing file or folder is touched only with --force."""

from __future__ import annotations

import os
from pathlib import Path

from nfspec.errors import InputError

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
    if force or (folder / marker).is_file() or not any(folder.iterdir()):
        return
    raise InputError(
        f"{folder} has files in it and no {marker}, so it is not an output of this command; "
        "give another folder, or write into it with --force"
    )


def place(temporary: Path, path: Path, force: bool) -> None:
    """Move a finished file to its place; one that came to be there meanwhile is left as it is."""
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise InputError(f"{path} exists, and is left as it is; replace it with --force") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    temporary.unlink()
