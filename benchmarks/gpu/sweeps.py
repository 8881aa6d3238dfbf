"""Contestants measured one after another, each in a process of its own, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

from nfspec.benchmarks.gpu.running import NoTimeLeft, Record
from nfspec.benchmarks.requests import Answer, Prepare, Profile, Repeat, Request
from nfspec.benchmarks.run import Process
from nfspec.benchmarks.works import Contestant, Setup

Start = Callable[[str, str], Process]
ENOUGH = 2.0  # seconds of runs, after which a median is good enough
FEWEST, MOST = 3, 30  # runs


@dataclass(frozen=True)
class Sweep:
    """A contestant at several batch sizes, until the device has no memory left.

    Attributes:
        contestant: Who.
        setup: The network, the side of its images and the arithmetic.
        batches: Numbers of images, from few to many.
        device: cpu or gpu.
        profile: Profile the largest batch that was measured, and measure no times.
        start: Makes a process for a backend and a device.
    """

    contestant: Contestant
    setup: Setup
    batches: Sequence[int]
    device: str
    profile: bool = False
    start: Start = Process

    def measure(self, so_far: list[Record], until: float, keep: Callable[[Record], None]) -> None:
        """Measure the batches that are not in `so_far`, and keep a record of each."""
        if any("error" in record for record in so_far):
            return  # a larger batch has no more memory
        measured = {record["batch"] for record in so_far}
        process = self.start(self.contestant.backend, self.device)
        try:
            for batch in self.batches:
                if batch in measured:
                    continue
                begun = time.monotonic()
                if batch != self.batches[0] and measured and begun >= until:
                    raise NoTimeLeft
                record = self._record(_Asked(process, until), batch)
                keep(record)
                if "error" in record:
                    return
                measured.add(batch)
                if batch != self.batches[-1] and 2 * time.monotonic() - begun > until:
                    raise NoTimeLeft  # the next takes longer than this one
        finally:
            process.end()

    def _record(self, ask: _Asked, batch: int) -> Record:
        contestant, setup = self.contestant, replace(self.setup, batch=batch)
        record: Record = {
            "contestant": contestant.name,
            "peer": contestant.peer,
            "make": contestant.make,
            "options": contestant.options,
            "setup": asdict(setup),
            "batch": batch,
        }
        first = ask(Prepare(contestant.make, setup, contestant.options))
        if first.error is not None:
            return record | _failed(first)
        record["first"] = first.first
        if self.profile:
            found = ask(Profile(FEWEST))
            return record | ({"kernels": found.kernels} if not found.error else _failed(found))
        (once,) = ask(Repeat(1)).seconds or [0.0]
        runs = min(MOST, max(FEWEST, int(ENOUGH / max(once, 1e-6))))
        answer = ask(Repeat(runs))
        if answer.error is not None:
            return record | _failed(answer)
        return record | {
            "seconds": answer.seconds,
            "median": median(answer.seconds),
            "peak": answer.peak,
        }


@dataclass(frozen=True)
class _Asked:
    """A process that has to answer in time."""

    process: Process
    until: float

    def __call__(self, request: Request) -> Answer:
        left = self.until - time.monotonic()
        if left <= 0.0:
            raise NoTimeLeft
        try:
            return self.process.ask(request, left)
        except TimeoutError:
            raise NoTimeLeft from None


def _failed(answer: Answer) -> Record:
    return {"error": answer.error, "out_of_memory": answer.out_of_memory}
