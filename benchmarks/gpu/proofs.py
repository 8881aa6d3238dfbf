"""The conformance kit on the device: every property of a spec, then the faults of narrow
arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.benchmarks.gpu.running import NoTimeLeft, Record
from nfspec.conformance.running.journal import JOURNAL
from nfspec.conformance.running.kill import KillMatrix, kill_matrix
from nfspec.conformance.running.settings import Settings
from nfspec.files import opened

# Mistakes that accelerators invite: operands, kernels or norms that are rounded.
FAULTS = (
    "conv-input-tf32",
    "conv-input-bf16",
    "ws-kernel-bf16",
    "ws-weight-bf16",
    "ws-one-pass",
    "agc-bf16",
    "agc-narrow-norm",
)
REPLY = 120.0  # seconds to wait for one reply


@dataclass(frozen=True)
class Proof:
    """A run of the kit.

    Attributes:
        spec: The spec that is tested.
        backends: Frameworks.
        device: cpu or gpu.
        modes: Modes of the arithmetic, one after another.
        folder: Folder of its reports.
    """

    spec: str
    backends: Sequence[str]
    device: str
    modes: Sequence[str]
    folder: Path

    @property
    def command(self) -> list[str]:
        return [
            sys.executable, "-P", "-m", "nfspec", "conform", self.spec,
            "--backends", ",".join(self.backends), "--device", self.device,
            "--mode", ",".join(self.modes), "--examples", "0", "--timeout", f"{REPLY:g}",
            "--no-explain", "--out", str(self.folder),
            *(["--resume"] if (self.folder / JOURNAL).is_file() else []),
        ]  # fmt: skip

    def properties(
        self, so_far: list[Record], until: float, keep: Callable[[Record], None]
    ) -> None:
        """Run `nfspec conform`, or go on with its run, and keep what it has judged.

        Raises:
            NoTimeLeft: The process had to be ended; its journal has what it had judged.
        """
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=None)
        try:
            status = process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
        keep({"status": status, "columns": columns(self.folder)})
        if status is None:
            raise NoTimeLeft

    def faults(self, so_far: list[Record], until: float, keep: Callable[[Record], None]) -> None:
        """Seed each fault in the first mode, and keep which property found it, on each framework.

        Raises:
            NoTimeLeft: There are faults left.
        """
        done = {record["fault"] for record in so_far if "fault" in record}
        left = tuple(name for name in FAULTS if name not in done)
        settings = Settings(
            source=self.spec,
            subjects=tuple(self.backends),
            device=self.device,
            modes=tuple(self.modes[:1]),
            examples=0,
            timeout=REPLY,
        )

        def tell(matrix: KillMatrix, message: str) -> None:
            name = [*matrix.kills][-1]
            by = {column: kill.property for column, kill in matrix.kills[name].items()}
            keep({"fault": name, "found_by": by})
            if name != left[-1] and time.monotonic() > until:
                raise NoTimeLeft

        kill_matrix(settings, left, tell)


def columns(folder: Path) -> dict[str, dict[str, Any]]:
    """For each column that a journal has cells of: how many have which verdict, the worst ratio of
    |error| to its bound, and the first lines of what failed."""
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    worst: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    failures: dict[str, list[str]] = defaultdict(list)
    for cell in _cells(folder / JOURNAL):
        column, name = cell["column"], cell["property"]
        verdicts[column][cell["verdict"]] += 1
        worst[column] = max(worst[column], (float(cell["worst"]), name))
        if cell["message"]:
            failures[column].append(f"{name}: {cell['message'].splitlines()[0]}")
    return {
        column: {
            "verdicts": dict(counts),
            "worst": str(worst[column][0]),
            "worst_property": worst[column][1],
            "failures": failures[column],
        }
        for column, counts in verdicts.items()
    }


def _cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a journal, whose last line may have been cut short."""
    if not path.is_file():
        return []
    cells = []
    with opened(path) as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "cell" in entry:
                cells.append(entry["cell"])
    return cells
