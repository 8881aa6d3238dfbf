"""Labelled images in tar files, as WebDataset has them: 0001.jpg with 0001.cls or 0001.json.

Nothing is unpacked: an image is read from its place in the file when it is asked for, so that the
order of a training, and where it goes on, do not depend on the order in the file.

Source: https://github.com/webdataset/webdataset (a key is a name up to its first dot).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nfspec.data.labels import text_of
from nfspec.data.lists import LABELS
from nfspec.data.pieces import Piece, Tell, source_of, untold
from nfspec.data.sources import EXTENSIONS, Source
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.wording import printable, reason_of

SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
CLASS, FACTS = "cls", "json"
MOST_LABEL = {CLASS: 2**12, FACTS: 2**22}  # bytes
EXPECTED = f"a number or a name of a class in NAME.{CLASS}, or as {LABELS[0]} in NAME.{FACTS}"
# What tarfile raises for what is no archive, or is damaged.
DAMAGED = (tarfile.TarError, OSError, ValueError, EOFError, MemoryError, RecursionError)


def is_shard(path: Path) -> bool:
    """True for a file whose name is that of a tar file."""
    return path.name.lower().endswith((SUFFIX, *COMPRESSED))


def sharded(files: Sequence[Path], classes: tuple[str, ...] = (), tell: Tell = untold) -> Source:
    """The images of tar files, in the order of the files and of the images in each.

    Args:
        files: The tar files, not compressed.
        classes: Names of the classes, in the order of their labels; those that are found, in
            order, if empty. Labels that are whole numbers, and no names, count from 0 in it.
        tell: Called with a message now and then.

    Raises:
        InputError: A file is damaged, compressed or no tar file; a member is a link, leads out of
            the archive by its name, or is there twice; an image has no label, or one of other
            classes.
    """
    for file in files:
        if file.name.lower().endswith(COMPRESSED):
            raise InputError(
                f"{printable(str(file))}: compressed, so that images cannot be read in any order; "
                "unpack it to a .tar: the images in it are compressed as they are"
            )
    found = ((n, piece) for n, file in enumerate(files) for piece in _pieces(file))
    return source_of(files, found, classes, EXPECTED, tell)


def _pieces(path: Path) -> list[Piece]:
    """The images in a tar file."""
    shown = printable(str(path))
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        for archive, member in _members(path):
            key, suffix = _key(shown, member.name)
            if suffix not in MOST_LABEL and f".{suffix}" not in EXTENSIONS:
                continue
            name = f"{shown}: {printable(member.name)}"
            if not member.isreg() or member.issparse():
                kind = "a link" if member.issym() or member.islnk() else "no regular file"
                raise InputError(f"{name}: {kind}; expected a file with its bytes in the archive")
            if suffix not in MOST_LABEL:
                if key in images:
                    raise InputError(
                        f"{name}: a second image called {printable(key)}; expected one, with its "
                        "label beside it"
                    )
                images[key] = (member.name, member.offset_data, member.size)
            elif suffix == CLASS or key not in labels:
                label = _label(name, archive, member, suffix)
                if label is not None:
                    labels[key] = label
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(f"{shown}: not a tar file that can be read ({reason})") from None
    return [Piece(*place, labels.get(key)) for key, place in images.items()]


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an archive, none of which is kept.

    Raises:
        tarfile.TarError: It is damaged, or ends too soon.
    """
    with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        end = -1
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # or it holds a million of them
            if archive.offset <= end:
                raise tarfile.ReadError("a member that begins before the one before it")
            end = archive.offset
            yield archive, member
        # tarfile takes a damaged header for the end.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {archive.offset:,}")


def _key(shown: str, name: str) -> tuple[str, str]:
    """The name of a member up to its first dot, and what follows, in lower case.

    Raises:
        InputError: The name leads out of the archive.
    """
    folder, slash, last = name.rpartition("/")
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise InputError(
            f"{shown}: {printable(name)}: a name that leads out of the archive; make the archive "
            "anew with names below its folder"
        )
    before, _, suffix = last.partition(".")
    return f"{folder}{slash}{before}", suffix.lower() if before else ""


def _label(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> str | None:
    """The label in a member; None if it has facts, but no label.

    Raises:
        InputError: It is too long, or no text.
    """
    if member.size > MOST_LABEL[suffix]:
        raise InputError(
            f"{name}: {member.size:,} bytes; expected a label of at most {MOST_LABEL[suffix]:,}"
        )
    file = archive.extractfile(member)
    assert file is not None
    try:
        text = file.read().decode("utf-8")
        if suffix == CLASS:
            return text.strip() or None
        facts = json.loads(text)
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8; expected a label") from None
    except (ValueError, RecursionError):
        raise InputError(f"{name}: not JSON; expected a label in it") from None
    if not isinstance(facts, dict):
        raise InputError(f"{name}: expected an object of JSON with a {LABELS[0]} in it")
    found = [text_of(facts[key]) for key in (*LABELS, CLASS) if key in facts]
    return found[0] if found else None
