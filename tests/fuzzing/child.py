"""One turn of a target, in a process of its own with limits of time and memory."""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import json
import mmap
import os
import resource
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from nfspec.errors import NfspecError

from fuzzing.target import Target, fault_of_text
from fuzzing.watch import Ran, Watch

PROJECT = Path(__file__).parents[2]
TIMES = 10  # the time of the valid files together, which none may take alone
PER_BYTE = 32  # of memory: bytes for each of a file
BACKSTOP = 2 * 2**30  # of memory beyond what is there, after which there is none


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
        target: What is fuzzed.
        folder: Where the file is written that is read; nothing else is in it.
        counter: Of files.
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
            before = _peak()
            spent += min(self._spent(self.target.largest) for _ in range(2))
            self.limit = TIMES * spent + collected
            self.room = max(0, _peak() - before) + self.target.spare
        data = _status("VmData")
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (data + BACKSTOP, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self.watch = Watch(self.folder, (PROJECT,), self.target.writes)

    def _spent(self, data: bytes) -> float:
        """Read a file; seconds of processor time."""
        self.path.write_bytes(data)
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
        self.path.write_bytes(data)
        before = _peak()
        self.counter.start()
        what, details = self._outcome()
        self.counter.end()
        grown = _peak() - before
        if self.watch.seen:
            what = self.watch.seen[0]
        elif self._is_changed(data):
            what = "changed files"
        elif grown > self.room + PER_BYTE * len(data):
            what = f"memory: {grown >> 20} MiB for a file of {len(data):,} bytes"
        return Finding(self.target.name, what, details, data) if what else None

    def _is_changed(self, data: bytes) -> bool:
        if [path for path in self.folder.rglob("*") if not path.is_dir()] != [self.path]:
            return True
        return not self.target.writes and self.path.read_bytes() != data

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
            return f"{fault}: {_place(error)}" if fault else "", str(error)
        except Ran as error:
            return str(error), ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return _place(error), traceback.format_exc()
        faults = filter(None, (fault_of_text(str(warning.message)) for warning in said))
        return next((f"a warning: {fault}" for fault in faults), ""), ""

    def hostile(self, start: int) -> None:
        """Read the files that broke readers before, from a number on."""
        for data in list(self.target.hostile.values())[start:]:
            self.keep(data)

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


@contextmanager
def timed(limit: float) -> Iterator[None]:
    """End this process by SIGPROF after so many seconds of its own processor time.

    A handler in Python would wait for a loop in C to end.
    """
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def show_where_it_hangs(path: Path) -> None:
    """Write the stack to a file when SIGPROF comes, and then end."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.register(signal.SIGPROF, path.open("w"), all_threads=False, chain=True)
    faulthandler.enable(path.open("a"), all_threads=False)


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    """A figure of this process that the kernel keeps, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)


def _place(error: BaseException) -> str:
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
