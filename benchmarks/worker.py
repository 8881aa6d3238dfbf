"""A contestant's process: answers the requests of `requests` over a pipe."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nfspec.benchmarks import device
from nfspec.benchmarks.profiling import profiled
from nfspec.benchmarks.requests import Answer, Build, Facts, Prepare, Profile, Repeat, Request
from nfspec.benchmarks.works import Work

BACKEND = os.environ.get("KERAS_BACKEND", "")  # the framework of this process
STATUS = Path("/proc/self/status")

Maker = Callable[..., Work]  # of a `Setup` and options


def _ours() -> Mapping[str, Maker]:
    from nfspec.benchmarks.ours import MAKERS

    return MAKERS


def _timm() -> Mapping[str, Maker]:
    from nfspec.benchmarks.timm import MAKERS

    return MAKERS


def _optax() -> Mapping[str, Maker]:
    from nfspec.benchmarks.optax import MAKERS

    return MAKERS


def _sources() -> Mapping[str, Maker]:
    from nfspec.benchmarks.sources import MAKERS

    return MAKERS


def _exported() -> Mapping[str, Maker]:
    from nfspec.benchmarks.exported import MAKERS

    return MAKERS


def _decoding() -> Mapping[str, Maker]:
    from nfspec.benchmarks.decoding import MAKERS

    return MAKERS


def _peaks() -> Mapping[str, Maker]:
    from nfspec.benchmarks.peaks import MAKERS

    return MAKERS


# The makers of work by whose it is; each imports its framework when it is asked for.
MAKERS: dict[str, Callable[[], Mapping[str, Maker]]] = {
    "ours": _ours,
    "timm": _timm,
    "optax": _optax,
    "sources": _sources,
    "exported": _exported,
    "decoding": _decoding,
    "peaks": _peaks,
}


def take_cores(count: int | None) -> None:
    """Use so many cores alone, which frameworks make as many threads for when they are imported."""
    if count is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def memory(field: str) -> int:
    """Memory of this process, bytes: `VmRSS` now, `VmHWM` at its peak.

    Not `ru_maxrss`: on Linux a process inherits it from the one that started it.
    """
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(kilobytes)


def forget_peak() -> None:
    """Let `VmHWM` start again from the memory in use now."""
    with contextlib.suppress(OSError):  # a system that does not allow it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _built(request: Build) -> Answer:
    """Seconds to build a model, and the peak growth of memory where Linux reports it."""
    from nfspec import compilation
    from nfspec.benchmarks import inputs
    from nfspec.language.loader import load
    from nfspec.plan.resolver import resolve

    backend: Any = request.backend
    spec = inputs.spec_of(request.setup)
    compilation.compile(load("timm/test_nfnet"), backend)  # imports
    measurable = STATUS.exists()
    forget_peak()
    before, start = memory("VmRSS") if measurable else 0, time.perf_counter()
    model = compilation.compile(spec, backend)
    seconds = time.perf_counter() - start
    assert len(model.trainable_variables) > 0
    weights = 4 * sum(p.size for p in resolve(spec).parameters.values())
    growth = max(0, memory("VmHWM") - before) / weights if measurable else None
    return Answer(seconds=[seconds], memory=growth)


def _timed(work: Work) -> float:
    start = time.perf_counter()
    work()
    device.wait()
    return time.perf_counter() - start


class Contestant:
    """The work that was made ready last."""

    def __init__(self) -> None:
        self.work: Work | None = None

    def answer(self, request: Request) -> Answer:
        match request:
            case Prepare():
                self.work = None  # its memory is for the next
                gc.collect()
                device.release()
                take_cores(request.setup.cores)
                device.set_precision(BACKEND, request.setup.precision)
                whose, _, name = request.make.partition(":")
                self.work = MAKERS[whose]()[name](request.setup, **request.options)
                return Answer(first=_timed(self.work))
            case Repeat():
                seconds = [_timed(self._ready()) for _ in range(request.runs)]
                return Answer(seconds=seconds, peak=device.peak())
            case Build():
                take_cores(request.setup.cores)
                return _built(request)
            case Facts():
                return Answer(facts=device.facts(BACKEND))
            case Profile():
                return Answer(kernels=profiled(BACKEND, self._ready(), request.runs))

    def _ready(self) -> Work:
        assert self.work is not None, "no work is ready"
        return self.work


def main(descriptor: int) -> None:
    """Answer until the other end closes. Whatever frameworks print goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    os.dup2(2, 1)
    pipe = Connection(descriptor)
    contestant = Contestant()
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            answer = contestant.answer(request)
        except Exception as error:  # whatever a framework raises is this contestant's result
            said = str(error).strip() or type(error).__name__
            answer = Answer(
                error=f"{type(error).__name__}: {said.splitlines()[0]}",
                out_of_memory=device.is_out_of_memory(error),
            )
        pipe.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
