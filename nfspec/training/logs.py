"""The log of a training: a line of JSON for each step and each evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
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


@dataclass(frozen=True)
class Summary:
    """A training in numbers.

    Attributes:
        steps, epochs: Steps that it has made, and the epochs that they are.
        loss, accuracy: On training images, mean over the last tenth of the steps.
        clip_fraction: The same of the clip fraction; None without clipping.
        images_per_second: Median over the steps.
        top1, held_out_loss: Of the last evaluation; None before the first.
        best_top1, best_epoch: The highest top-1, and the epoch of the first evaluation that had it.
    """

    steps: int
    epochs: float
    loss: float
    accuracy: float
    clip_fraction: float | None
    images_per_second: float
    top1: float | None
    held_out_loss: float | None
    best_top1: float | None
    best_epoch: float | None


def summary(entries: Sequence[Entry]) -> Summary | None:
    """The numbers of a training; None if its log has no step."""
    steps = [entry for entry in entries if "loss" in entry]
    held = [entry for entry in entries if "top1" in entry]
    if not steps:
        return None
    tenth = steps[-max(1, len(steps) // 10) :]
    clipped = [entry["clip_fraction"] for entry in tenth if "clip_fraction" in entry]
    last = held[-1] if held else {}
    best = max(held, key=lambda entry: entry["top1"], default={})
    return Summary(
        steps[-1]["step"],
        steps[-1]["epoch"],
        fmean(entry["loss"] for entry in tenth),
        fmean(entry["accuracy"] for entry in tenth),
        fmean(clipped) if clipped else None,
        median(entry["images_per_second"] for entry in steps),
        last.get("top1"),
        last.get("held_out_loss"),
        best.get("top1"),
        best.get("epoch"),
    )
