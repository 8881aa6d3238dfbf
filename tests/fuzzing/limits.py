"""Limits of a process's time and memory, and their measurement."""

from __future__ import annotations

import faulthandler
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKSTOP = 2 * 2**30  # of memory beyond what is there, after which there is none


def limit_memory() -> None:
    """Let this process have so much memory more than it has, and write no core."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + BACKSTOP, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def status(name: str) -> int:
    """A figure of this process that the kernel keeps, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)
