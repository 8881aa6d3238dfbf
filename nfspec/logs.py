"""The log of a training: a line of JSON for each step and each evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nfspec.weights.files import replacing

Entry = dict[str, Any]


def append(path: Path, entry: Entry) -> None:
    """Add an entry at the end of a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read(path: Path) -> list[Entry]:
    """The entries of a log, up to one that was not written to its end."""
    found: list[Entry] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found


def cut(path: Path, step: int) -> list[Entry]:
    """Take out of a log what comes after a step, as that will be done again; returns the rest."""
    kept = [entry for entry in read(path) if entry["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")
    return kept
