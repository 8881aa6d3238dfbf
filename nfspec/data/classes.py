"""Names of a network's classes: those of its training, of a file, or of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nfspec.errors import InputError
from nfspec.files import content
from nfspec.wording import printable

IMAGENET = 1_000  # classes of the data on which weights of others are trained
MOST_BYTES = 2**26  # of a file of names


@dataclass(frozen=True)
class Classes:
    """Names of classes, in the order of a network's outputs.

    Attributes:
        source: Whose names they are, in a few words; empty where they are numbers.
        names: The names.
        synsets: WordNet's identifiers of the names, such as n01440764; empty where there are none.
    """

    source: str
    names: tuple[str, ...]
    synsets: tuple[str, ...] = ()


@cache
def imagenet() -> Classes:
    """The 1,000 classes of ImageNet (ILSVRC 2012), as WordNet 3.0 names them.

    Source: timm 1.0.31; the file says more.
    """
    text = Path(__file__).with_name("imagenet.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    synsets, names = zip(*lines, strict=True)
    return Classes("ImageNet", names, synsets)


def read_classes(path: str | Path, count: int | None = None) -> Classes:
    """The names in a text file, one on a line, in the order of the outputs.

    Args:
        path: The file, UTF-8.
        count: Number of the network's classes; any if None.

    Raises:
        InputError: It cannot be read, is empty, or has another number of names.
    """
    shown = printable(str(path))
    try:
        names = content(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{shown}: not a text file in UTF-8; expected a name on each line"
        ) from None
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise InputError(f"{shown}: empty; expected the name of a class on each line")
    return named(names, len(names) if count is None else count, shown)


def named(names: Sequence[str], count: int, source: str) -> Classes:
    """Names that are given.

    Raises:
        InputError: Another number than the network has classes.
    """
    if len(names) != count:
        raise InputError(
            f"{source}: expected names for {count:,} classes, which the network has; found "
            f"{len(names):,}"
        )
    return Classes(source, tuple(name.strip() for name in names))


def unnamed(count: int) -> Classes:
    """Names for classes of which nothing is known but their number."""
    return Classes("", tuple(f"class {n}" for n in range(count)))
