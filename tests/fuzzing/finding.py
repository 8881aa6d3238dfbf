"""A fault of a reader."""

from __future__ import annotations

import hashlib
import json
import traceback
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finding:
    """A file that a reader neither takes nor refuses as it should.

    Attributes:
        target: Its reader.
        what: One line; the same for files that show the same fault.
        details: A traceback, if there is one.
        data: The file.
    """

    target: str
    what: str
    details: str
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.target}-{hashlib.sha256(self.what.encode()).hexdigest()[:8]}"


def place_of(error: BaseException) -> str:
    """An error by its kind and the last place in this project, one line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(PROJECT)) and ".venv" not in f.filename]
    last = ours[-1] if ours else frames[-1]
    name = Path(last.filename).relative_to(PROJECT) if ours else Path(last.filename).name
    said = f": {error}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} in {name}, {last.name}{said}"[:300]


def as_json(findings: dict[str, Finding]) -> str:
    """Findings for the process that waits."""
    return json.dumps([[f.target, f.what, f.details, f.data.hex()] for f in findings.values()])


def from_json(text: str) -> list[Finding]:
    """The inverse of `as_json`."""
    return [Finding(t, what, details, bytes.fromhex(d)) for t, what, details, d in json.loads(text)]
