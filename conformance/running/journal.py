"""The journal of a run: finished cells, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import Cell, cell_of
from nfspec.errors import InputError
from nfspec.files import opened, write

JOURNAL = "journal.jsonl"
FINISHED = {"finished": True}
LONGEST = 2**22  # bytes of a line; the longest ones hold a message with a traceback


class Journal:
    """Finished cells, one line of JSON each; an interrupted run loses the present one alone.

    A new journal is written when the run has its first cell, and ends in a line that says that the
    run is finished.

    Args:
        folder: Folder of the journal; None for none.
        about: Settings of the run, which are kept in the first line.
        resume: Read the cells of an earlier run, whose settings must be the same.

    Raises:
        InputError: There is no journal to go on with, or it is not one of such a run.
    """

    def __init__(self, folder: Path | None, about: dict[str, Any], resume: bool):
        self.path = folder / JOURNAL if folder else None
        self.cells: list[Cell] = []
        if self.path is None:
            return
        self._about: dict[str, Any] | None = None if resume else about
        if resume:
            self._read(about)

    def _read(self, about: dict[str, Any]) -> None:
        assert self.path is not None
        if not self.path.is_file():
            raise InputError(f"--resume: {self.path} does not exist; start without --resume")
        with opened(self.path) as file:
            lines = [line.decode(errors="replace") for line in iter(lambda: self._line(file), b"")]
        entries = [json.loads(line) for line in lines if _whole(line)]
        if not entries or not isinstance(entries[0], dict) or entries[0].get("run") != about:
            raise InputError(
                f"--resume: {self.path} is of a run with other settings; start without --resume, "
                "or give another --out"
            )
        try:
            entries = [entry for entry in entries if entry != FINISHED]
            self.cells = [cell_of(entry["cell"]) for entry in entries[1:]]
            for cell in self.cells:
                if cell.worst_case is not None:
                    Case.parse(cell.worst_case)
        except InputError as error:
            raise InputError(f"--resume: {self.path}: {error}; start anew with --force") from None
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"--resume: {self.path} has a line that is no cell; start anew with --force"
            ) from None
        # Without a line that was cut short.
        write(self.path, "".join(f"{json.dumps(entry)}\n" for entry in entries))

    def _line(self, file: IO[bytes]) -> bytes:
        line = file.readline(LONGEST + 1)
        if len(line) > LONGEST:
            raise InputError(
                f"--resume: {self.path} has a line of more than {LONGEST:,} bytes, which no run "
                "writes; start anew with --force"
            )
        return line

    def add(self, entry: dict[str, Any]) -> None:
        """Write a line, and see that it is on the disk."""
        if self.path is None:
            return
        if self._about is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"run": self._about}) + "\n", encoding="utf-8")
            self._about = None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def holds_finished(folder: Path, about: dict[str, Any]) -> bool:
    """True if a folder has the journal of a finished run with the same settings, whatever the spec
    was."""
    path = folder / JOURNAL
    if not path.is_file():
        return False
    with opened(path) as file:
        first = last = file.readline(LONGEST)
        while line := file.readline(LONGEST):
            last = line
    if not all(_whole(line.decode(errors="replace")) for line in (first, last)):
        return False
    run = json.loads(first)
    same = isinstance(run, dict) and isinstance(run.get("run"), dict)
    return (
        same
        and {**run["run"], "digest": ""} == {**about, "digest": ""}
        and (json.loads(last) == FINISHED)
    )


def _whole(line: str) -> bool:
    """True if a line was written to its end."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
