"""Runs contestants in turn, and collects their times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from nfspec.benchmarks.requests import Answer, Build, Prepare, Repeat, Request
from nfspec.benchmarks.works import Contestant, Setup
from nfspec.conformance.workers.pipes import PipeProcess, ProcessDiedError
from nfspec.conformance.workers.process import DEVICES, GROWING

Say = Callable[[str], None]


@dataclass
class Result:
    """The times of one contestant.

    Attributes:
        work: A key of `works.WORKS`, or `build`.
        name: Name of the contestant.
        peer: Name of the contestant that it is compared with.
        setup: The network and its input.
        first: Seconds of the first call, compilation included.
        seconds: Time of each later call.
        error: Why there are no times.
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
    """The process of a contestant, in which Keras runs on a framework of its own.

    Args:
        backend: The framework.
        device: cpu or gpu, the only ones that it sees; empty for what it takes by itself.
    """

    def __init__(self, backend: str, device: str = ""):
        environment = {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **(GROWING if device else {}),
            **DEVICES[device],
        }
        self._pipe = PipeProcess("nfspec.benchmarks.worker", environment=environment)
        self.process = self._pipe.process

    def ask(self, request: Request, timeout: float | None = None) -> Answer:
        """Send a request and wait for the answer; that of a process that died is an error.

        Raises:
            TimeoutError: No answer came within so many seconds. The process is killed.
        """
        try:
            self._pipe.send(request)
            answer = self._pipe.receive(timeout)
        except ProcessDiedError as death:
            words = [line.strip() for line in death.output.splitlines() if line.strip()]
            said = f": {words[-1]}" if words else ""
            return Answer(error=f"its process ended with status {death.status}{said}")
        assert isinstance(answer, Answer)
        return answer

    def end(self) -> None:
        self._pipe.close()


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
        work: A key of `works.WORKS`, for the results.
        contestants: Those who take part.
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
            answer = process.ask(Prepare(contestant.make, setup, contestant.options))
            result.error, result.first = answer.error, answer.first
        pairs = list(zip(processes, results, strict=True))
        for i in range(rounds):
            say(f"{work}: round {i + 1} of {rounds}")
            turn = i % len(pairs) if pairs else 0
            for process, result in pairs[turn:] + pairs[:turn]:
                if result.error is None:
                    # The first of two runs finds the caches as another left them.
                    answer = process.ask(Repeat(2))
                    result.error = answer.error
                    result.seconds += answer.seconds[1:]
    except KeyboardInterrupt:
        raise Interrupted(results) from None
    finally:
        for process in processes:
            process.end()
    return results


def build(
    setup: Setup, backends: Iterable[str], say: Say, start: Callable[[str], Process] = Process
) -> list[Result]:
    """Time and memory of building a model, each in a process of its own.

    Raises:
        Interrupted: With what was measured.
    """
    results: list[Result] = []
    for backend in backends:
        say(f"build: {backend}")
        result = Result("build", backend, None, setup)
        process = start(backend)
        try:
            answer = process.ask(Build(setup, backend))
        except KeyboardInterrupt:
            raise Interrupted([*results, result]) from None
        finally:
            process.end()
        result.error, result.memory = answer.error, answer.memory
        result.seconds = answer.seconds
        results.append(result)
    return results
