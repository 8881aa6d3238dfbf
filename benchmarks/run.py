"""Runs contestants in turn, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from nfspec.benchmarks.works import Contestant, Setup

Say = Callable[[str], None]


@dataclass
class Result:
    """What one contestant did.

    Attributes:
        work: A key of `works.WORKS`, or `build`.
        name: The contestant's.
        peer: Whom it is compared with.
        setup: The network and its input.
        first: Seconds of the first call, compilation included.
        seconds: Time of each later call.
        error: Why there are none.
        memory: For `build`, the growth of memory at its peak, in units of the weights' bytes.
    """

    work: str
    name: str
    peer: str | None
    setup: Setup
    first: float | None = None
    seconds: list[float] = field(default_factory=list)
    error: str | None = None
    memory: float | None = None

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None


def ratio(result: Result, results: Iterable[Result]) -> float | None:
    """A contestant's median over its peer's, in the same work and setup."""
    for other in results:
        same = (other.work, other.setup, other.name) == (result.work, result.setup, result.peer)
        if same and other.median and result.median:
            return result.median / other.median
    return None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; `results` has what was measured until then."""

    def __init__(self, results: list[Result]):
        super().__init__()
        self.results = results
        for result in results:
            if not result.seconds:
                result.error = result.error or "interrupted"


class Process:
    """A worker process."""

    def __init__(self, backend: str):
        self._home = tempfile.TemporaryDirectory(prefix="nfspec-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "KERAS_HOME": self._home.name,  # the user's keras.json could change dtypes and layouts
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.process = subprocess.Popen(
            # -P: what lies in the present folder must not stand in for a framework.
            [sys.executable, "-P", "-m", "nfspec.benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, **line: Any) -> dict[str, Any]:
        """Send a line and wait for the answer; a process that died answers with an error."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
            text = self.process.stdout.readline()
        except BrokenPipeError:
            text = ""
        if not text:
            status = self.process.wait()
            return {"error": f"its process ended with status {status}{self._last_words()}"}
        return dict(json.loads(text))

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1]}" if said else ""

    def end(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()  # closes the pipes, too
        self._log.close()
        self._home.cleanup()


def race(
    work: str,
    contestants: list[Contestant],
    setup: Setup,
    rounds: int,
    say: Say,
    start: Callable[[str], Process] = Process,
) -> list[Result]:
    """Let contestants take turns, each beginning a round in turn.

    Args:
        work: For the results.
        contestants: Who takes part.
        setup: The network and its input.
        rounds: Number of runs of each, after a first time that does not count.
        say: Called with a line for each step.
        start: Makes a process for a backend.

    Raises:
        Interrupted: With what was measured.
    """
    results = [Result(work, c.name, c.peer, setup) for c in contestants]
    processes: list[Process] = []
    try:
        for contestant, result in zip(contestants, results, strict=True):
            say(f"{work}: {contestant.name}")
            process = start(contestant.backend)
            processes.append(process)
            answer = process.ask(
                make=contestant.make, setup=asdict(setup), options=contestant.options
            )
            result.error, result.first = answer.get("error"), answer.get("first")
        pairs = list(zip(processes, results, strict=True))
        for i in range(rounds):
            say(f"{work}: round {i + 1} of {rounds}")
            turn = i % len(pairs) if pairs else 0
            for process, result in pairs[turn:] + pairs[:turn]:
                if result.error is None:
                    # The first of two runs finds the caches as another left them.
                    answer = process.ask(runs=2)
                    result.error = answer.get("error")
                    result.seconds += answer.get("seconds", [])[1:]
    except KeyboardInterrupt:
        raise Interrupted(results) from None
    finally:
        for process in processes:
            process.end()
    return results


def build(
    variant: str, backends: Iterable[str], say: Say, start: Callable[[str], Process] = Process
) -> list[Result]:
    """Time and memory of building a model, each in a process of its own.

    Raises:
        Interrupted: With what was measured.
    """
    results: list[Result] = []
    for backend in backends:
        say(f"build: {backend}")
        result = Result("build", backend, None, Setup(variant, 0, 0))
        process = start(backend)
        try:
            answer = process.ask(build={"variant": variant, "backend": backend})
        except KeyboardInterrupt:
            raise Interrupted([*results, result]) from None
        finally:
            process.end()
        result.error, result.memory = answer.get("error"), answer.get("memory")
        result.seconds = [answer["seconds"]] if "seconds" in answer else []
        results.append(result)
    return results
