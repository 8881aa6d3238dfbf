"""The log of a training: a line of JSON for each step and each evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nfspec.files import opened, write

NAME = "log.jsonl"  # of the log in a training's folder
Entry = dict[str, Any]
LONGEST = 2**16  # bytes of a line
Number = Annotated[float, Field(gt=-1e40, lt=1e40)]  # any in float32 that is finite
Share = Annotated[float, Field(ge=0, le=1)]


class _Line(BaseModel):
    """The values that every entry has, that of a step and that of an evaluation."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    step: Annotated[int, Field(ge=0, lt=2**53)]
    epoch: Number


class _Step(_Line):
    loss: Number
    accuracy: Number
    rate: Number
    images_per_second: Number


class _Clipped(_Step):
    clip_fraction: Number
    clip_fraction_of: dict[str, Number]


class _Evaluation(_Line):
    top1: Share
    top5: Share
    held_out_loss: Number
    held_out_images: Annotated[int, Field(ge=1, lt=2**53)]


def append(path: Path, entry: Entry) -> None:
    """Add an entry at the end of a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read(path: Path, say: Callable[[str], None] = lambda message: None) -> list[Entry]:
    """The entries of a log that are whole.

    Args:
        path: The file; where there is none, there are no entries.
        say: Called with a message for invalid lines, except for a last line that is incomplete.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with opened(path) as file:
            lines = [(_entry(line), line.endswith(b"\n")) for line in _lines(file)]
    except FileNotFoundError:
        return []
    bad = [number for number, (entry, whole) in enumerate(lines, 1) if whole and entry is None]
    if bad:
        rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        say(f"{path}: line {bad[0]}{rest}: not what a training writes; left out")
    return [entry for entry, _ in lines if entry is not None]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their line feeds; a line longer than any entry is replaced by a short one."""
    while line := file.readline(LONGEST):
        while len(line) == LONGEST and not line.endswith(b"\n"):
            line = file.readline(LONGEST)
            if len(line) < LONGEST or line.endswith(b"\n"):
                line = b"\n" if line.endswith(b"\n") else b"cut"
        yield line


def _entry(line: bytes) -> Entry | None:
    """A line as an entry that has all its numbers; None if it is something else."""
    try:
        entry = json.loads(line.decode("utf-8"))
        model = _Evaluation if "top1" in entry else _Clipped if "clip_fraction" in entry else _Step
        model.model_validate(entry)
    except (ValueError, RecursionError, TypeError, ValidationError):
        return None
    return entry if ("loss" in entry) != ("top1" in entry) else None


def cut(path: Path, step: int, say: Callable[[str], None] = lambda message: None) -> list[Entry]:
    """Delete the entries after a step, which will be done again; returns the rest."""
    kept = [entry for entry in read(path, say) if entry["step"] <= step]
    write(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept
