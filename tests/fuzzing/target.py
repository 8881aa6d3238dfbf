"""A target of fuzzing: a reader, files that it takes, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from fuzzing.irregular import IRREGULAR

MOST_LINES = 130  # of a message: 100 problems of a spec, or 20 tensors, and what stands around them
LONGEST_LINE = 1000


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Attributes:
        name: Its name in reports.
        file: Name of the file that it is given, below a folder; it may decide how it is read.
        read: Reads a file and asserts that what comes out is valid.
        seeds: Files that it takes, small.
        largest: A file that it takes and that takes it the longest; it sets the limit of time.
        hostile: Files that broke a reader, or were made to, by what they hold.
        inputs: Files that are spoilt in every way.
        spare: Memory that a file may take beyond what the largest valid one takes, in bytes, not
            counting what is in proportion to its own size.
        writes: True if the reader may write the file again, without the damaged part.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes]
    largest: bytes
    hostile: Mapping[str, bytes]
    inputs: SearchStrategy[bytes]
    spare: int = 64 * 2**20
    writes: bool = False

    @property
    def to_be_read_first(self) -> Sequence[bytes]:
        """Requests for what is no file, and the files that are hostile."""
        return [*IRREGULAR, *self.hostile.values()]


def fault_of_text(text: str) -> str | None:
    """The fault of a text that a user would see on a terminal; None without one."""
    lines = text.split("\n")
    if not text.strip():
        return "a message that says nothing"
    if not all(line.isprintable() for line in lines):
        return "a message with control characters"
    if len(lines) > MOST_LINES or max(map(len, lines)) > LONGEST_LINE:
        return "a message that fills the terminal"
    return None


def asserted(what: Any, sentence: str) -> None:
    """An assertion that `python -O` does not take away."""
    if not what:
        raise AssertionError(sentence)
