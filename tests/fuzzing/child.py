"""One turn of a target, in a process of its own with limits of time and memory."""

from __future__ import annotations

import gc
import mmap
import os
import struct
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from nfspec.errors import NfspecError

from fuzzing.finding import PROJECT, Finding, place_of
from fuzzing.irregular import is_same, put
from fuzzing.limits import limit_memory, peak, timed
from fuzzing.target import Target, fault_of_text
from fuzzing.watch import Ran, Watch

TIMES = 10  # the time of the valid files together, which none may take alone
LEAST = 2.0  # seconds that any file may take, such as one of thousands of mistakes
PER_BYTE = 32  # of memory: bytes for each of a file


class Counter:
    """Numbers that a turn and the process that waits for it share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    @property
    def started(self) -> int:
        return struct.unpack_from("<Q", self._memory, 0)[0]

    @property
    def ended(self) -> int:
        return struct.unpack_from("<Q", self._memory, 8)[0]

    def start(self) -> None:
        struct.pack_into("<Q", self._memory, 0, self.started + 1)

    def end(self) -> None:
        struct.pack_into("<Q", self._memory, 8, self.started)


@dataclass
class Turn:
    """A process that reads many files of a target.

    Attributes:
        target: The reader that is fuzzed.
        folder: Folder of the file that is read; nothing else is in it.
        counter: Counts the files that were begun and ended, for the process that waits.
        known: Faults that are counted and not reported again.
        limit, room: Seconds of processor time and bytes of memory for a file; 0 if they are still
            to be measured.
    """

    target: Target
    folder: Path
    counter: Counter
    known: set[str] = field(default_factory=set)
    limit: float = 0.0
    room: int = 0
    found: dict[str, Finding] = field(default_factory=dict)

    def prepare(self) -> None:
        """Set limits that stay for the life of the process, and read what is valid.

        Raises:
            AssertionError: The reader does not take a valid file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        os.chdir(self.folder)
        trap = self.folder.parent / "programs"
        trap.mkdir(exist_ok=True)
        for name in ("gs", "djpeg", "dcraw", "sh"):  # what some readers of images would start
            (trap / name).write_text("#!/bin/sh\n")
            (trap / name).chmod(0o755)
        os.environ["PATH"] = str(trap)
        self.path = self.folder / self.target.file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The first reads import what is imported when it is needed.
        spent = sum(map(self._spent, self.target.seeds)) + self._refuse_once()
        start = time.process_time()
        gc.collect()
        collected = time.process_time() - start  # which may fall into any read
        gc.freeze()
        if not self.limit:
            before = peak()
            spent += min(self._spent(self.target.largest) for _ in range(2))
            self.limit = max(LEAST, TIMES * spent + collected)
            self.room = max(0, peak() - before) + self.target.spare
        limit_memory()
        self.watch = Watch(self.folder, (PROJECT,), self.target.writes)

    def _spent(self, data: bytes) -> float:
        """Read a file; seconds of processor time."""
        put(self.path, data)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.target.read(self.path)
        return time.process_time() - start

    def _refuse_once(self) -> float:
        """Read what is no file of the kind, as errors need modules of their own."""
        start = time.process_time()
        for data in (b"", b"\x80\x04N.", b"[[", b"{}", b"PK\x03\x04" + bytes(30)):
            with suppress(Exception):  # what it is does not matter here; it comes again as an input
                self._spent(data)
        return time.process_time() - start

    def read(self, data: bytes) -> Finding | None:
        """Have the reader read a file; what is wrong with what it does, if anything."""
        (self.folder.parent / "data").write_bytes(data)  # if the reader ends the process
        put(self.path, data)
        before = peak()
        self.counter.start()
        what, details = self._outcome()
        self.counter.end()
        grown = peak() - before
        if self.watch.seen:
            what = self.watch.seen[0]
        elif self._is_changed(data):
            what = "changed files"
        elif grown > self.room + PER_BYTE * len(data):
            what = f"memory: {grown >> 20} MiB for a file of {len(data):,} bytes"
        return Finding(self.target.name, what, details, data) if what else None

    def _is_changed(self, data: bytes) -> bool:
        others = [
            path for path in self.folder.rglob("*") if not path.is_dir() and path != self.path
        ]
        return bool(others) or not (self.target.writes or is_same(self.path, data))

    def _outcome(self) -> tuple[str, str]:
        try:
            with (
                warnings.catch_warnings(record=True) as said,
                self.watch.reading(),
                timed(self.limit),
            ):
                warnings.simplefilter("always")
                self.target.read(self.path)
        except NfspecError as error:
            fault = fault_of_text(str(error))
            return f"{fault}: {place_of(error)}" if fault else "", str(error)
        except Ran as error:
            return str(error), ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return place_of(error), traceback.format_exc()
        faults = filter(None, (fault_of_text(str(warning.message)) for warning in said))
        return next((f"a warning: {fault}" for fault in faults), ""), ""

    def generated(self, number: int, count: int, shrink: bool) -> None:
        """Read spoilt files: turn `number` of so many reads the same ones each time."""
        phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

        @seed(number)
        @settings(
            max_examples=count,
            phases=phases,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(self.target.inputs)
        def check(data: bytes) -> None:
            if self.keep(data):
                raise AssertionError("a finding")

        with suppress(AssertionError):  # what it is stands in `found`
            check()

    def keep(self, data: bytes) -> bool:
        """Read a file, and keep the shortest of each fault; whether it shows a new fault."""
        finding = self.read(data)
        if finding is None or finding.name in self.known:
            return False
        kept = self.found.get(finding.name)
        if kept is None or len(finding.data) < len(kept.data):
            self.found[finding.name] = finding
        return True
