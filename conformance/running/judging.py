"""One property in one mode: its cases run on every column, are judged, and are counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import hypothesis
import numpy as np
from hypothesis import strategies as st

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import Cell, Verdict, histogram
from nfspec.conformance.properties import Property
from nfspec.conformance.running.answers import VERDICTS, Answer, PreparedCase, ask
from nfspec.conformance.running.command import command_of
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker

MAX_SEED = 2**20
MOST_WEIGHTS = 2**18  # of an operation that cases are drawn for
MOST_DEATHS = 2  # of a subject's process in one property, after which it is left
MOST_ENDINGS = 5  # of different errors in one property that are told
# Verdicts of errors, from the worst on.
SEVERITY: tuple[Verdict, ...] = ("crashed", "hung", "error", "missing")


@dataclass
class Unanswered:
    """The cases to which a subject gave no answer, as it raised, crashed or hung.

    Attributes:
        count: Number of them.
        deaths: Number of those at which its process crashed or hung.
        verdict: The worst verdict that they lead to; "pass" while there are none.
        case: The first of those with that verdict; None while there are none.
        text: The error there, with the command that runs the case again.
        endings: The last line of each other error, each once.
    """

    count: int = 0
    deaths: int = 0
    verdict: Verdict = "pass"
    case: Case | None = None
    text: str = ""
    endings: list[str] = field(default_factory=list)

    def add(self, case: Case, error: WorkerError, command: str) -> None:
        """Count an error."""
        verdict, ending = VERDICTS[error.kind], str(error).rpartition("\n")[2]
        self.count += 1
        self.deaths += error.kind in ("crashed", "hung")
        if self.case is None or SEVERITY.index(verdict) < SEVERITY.index(self.verdict):
            self.verdict, self.case = verdict, case
            self.text = str(error) if verdict == "missing" else f"{error}\n{command}"
        if ending not in self.endings:
            self.endings.append(ending)

    def words(self) -> str:
        """The number of cases without an answer, and the reason; empty if there are none."""
        if self.count < 2 or self.verdict == "missing":
            return self.text
        others = [ending for ending in self.endings if ending not in self.text][:MOST_ENDINGS]
        head = f"{self.count} cases had no answer; the first:"
        return "\n".join([head, self.text, *(f"another one: {ending}" for ending in others)])


@dataclass
class Tally:
    """The cases of one property on one column, counted.

    Attributes:
        ratios: Each judged case's largest |error| / bound.
        worst, worst_case: The largest of them, and its case.
        infinite: The reason why it is infinite; empty if it is finite.
        message: Description of the worst case that is beyond its bound.
        unanswered: The cases that ended in an error.
        unoffered: Number of cases that the subject has no counterpart of.
        lacking: The error of the first of those; None if it has all.
        beyond_reach: Regimes that cases met that are not offered.
        coverage: Regime to the number of judged cases that met it.
        wide: Number of cases answered in float64.
    """

    ratios: list[float] = field(default_factory=list)
    worst: float = -1.0
    worst_case: Case | None = None
    infinite: str = ""
    message: str = ""
    unanswered: Unanswered = field(default_factory=Unanswered)
    unoffered: int = 0
    lacking: WorkerError | None = None
    beyond_reach: set[str] = field(default_factory=set)
    coverage: dict[str, int] = field(default_factory=dict)
    wide: int = 0

    @property
    def ended(self) -> bool:
        """True if no more cases are put to the subject: it cannot run, or its process died twice.

        An error at one case says nothing about the next, so that it hides no failure there.
        """
        return self.unanswered.verdict == "missing" or self.unanswered.deaths >= MOST_DEATHS

    def add(self, case: Case, ratio: float, met: Iterable[str]) -> bool:
        """Count a case; whether it is the worst so far. A ratio that is no number is infinite."""
        ratio = math.inf if math.isnan(ratio) else ratio
        self.ratios.append(ratio)
        for name in met:
            self.coverage[name] = self.coverage.get(name, 0) + 1
        if ratio > self.worst:
            self.worst, self.worst_case = ratio, case
            return True
        return False

    def judged(self, answer: Answer) -> None:
        """Count an answer."""
        worst = self.add(answer.prepared.case, answer.ratio, answer.prepared.expected.met)
        self.wide += answer.wide
        if worst:
            self.infinite = answer.infinite
        if worst and answer.beyond:
            self.message = answer.text()

    def failed(self, prepared: PreparedCase, worker: Worker, error: WorkerError) -> None:
        """Count a case without an answer."""
        if VERDICTS[error.kind] != "not offered":
            self.unanswered.add(prepared.case, error, command_of(prepared.case, worker))
            return
        self.unoffered += 1
        self.lacking = self.lacking or error
        if error.kind != "no method":  # computed while the worker was asked
            self.beyond_reach |= prepared.expected.met

    def cell(self, asked: Property, column: str, must: frozenset[str], seconds: float) -> Cell:
        """The cell of the table, once all cases were counted."""
        if self.lacking and not self.unanswered.count and not self.ratios:
            return Cell(
                asked.id,
                column,
                "not offered",
                message=str(self.lacking),
                seconds=seconds,
                no_method=self.lacking.kind == "no method",
                unoffered=self.unoffered,
            )
        verdict, messages = self._verdict(must)
        if self.lacking:
            total = self.unoffered + self.unanswered.count + len(self.ratios)
            messages.append(f"{self.unoffered} of {total} cases not offered: {self.lacking}")
        at = self.worst_case if self.worst > 1.0 else self.unanswered.case or self.worst_case
        return Cell(
            property=asked.id,
            column=column,
            verdict=verdict,
            cases=len(self.ratios),
            median=float(np.median(self.ratios)) if self.ratios else 0.0,
            worst=max(self.worst, 0.0),
            histogram=histogram(self.ratios),
            worst_case=at.fields() if at else None,
            message="\n".join(filter(None, messages)),
            coverage=dict(sorted(self.coverage.items())),
            seconds=seconds,
            unoffered=self.unoffered,
            unanswered=self.unanswered.count,
            wide=self.wide,
            infinite=self.infinite,
        )

    def _verdict(self, must: frozenset[str]) -> tuple[Verdict, list[str]]:
        """The cell's verdict and messages, where there were answers or errors."""
        errors = self.unanswered
        if self.worst > 1.0:
            return "fail", [self.message, errors.words()]
        if errors.count:
            return errors.verdict, [errors.words()]
        unmet = must - set(self.coverage)
        if of_offered := sorted(unmet - self.beyond_reach):
            return "uncovered", [f"no case met: {', '.join(of_offered)}"]
        if not self.lacking:
            return "pass", []
        only = f"met by cases alone that are not offered: {', '.join(sorted(unmet))}"
        return "pass in part", [only] if unmet else []


class Trial:
    """One property in one mode on some columns.

    Args:
        asked: The property.
        workers: The workers of the columns.
        notify: Called with the number of cases so far, after each.
    """

    def __init__(self, asked: Property, workers: list[Worker], notify: Callable[[int], None]):
        self.asked = asked
        self.tallies = {worker: Tally() for worker in workers}
        self.notify = notify
        self.count = 0

    @property
    def live(self) -> list[Worker]:
        """The workers that are still asked."""
        return [
            worker
            for worker, tally in self.tallies.items()
            if not tally.ended and not (tally.unanswered.count and worker.given_up)
        ]

    def case(self, case: Case, workers: list[Worker]) -> float:
        """Run one case; the largest ratio of all answers, 0 if there is none."""
        ratios = [0.0]
        prepared = PreparedCase(case)
        for worker, answer in ask(prepared, workers).items():
            if isinstance(answer, WorkerError):
                self.tallies[worker].failed(prepared, worker, answer)
            else:
                self.tallies[worker].judged(answer)
                ratios.append(answer.ratio)
        self.count += 1
        self.notify(self.count)
        return max(ratios)

    def draw(self, essential: list[Case], examples: int, seed: int) -> None:
        """Let Hypothesis draw cases and climb towards the bound; a case beyond it is shrunk.

        Operations with many weights are left out, as an essential case has tested each of them.

        Args:
            essential: The cases whose descriptions and regimes are drawn from.
            examples: Number of cases to draw.
            seed: Random seed.
        """
        essential = [case for case in essential if _weights(case) <= MOST_WEIGHTS] or essential
        while examples > 0:
            workers = [
                worker
                for worker in self.live
                if self.tallies[worker].worst <= 1.0 and not self.tallies[worker].unanswered.count
            ]
            if not workers:
                return
            before = self.count
            self._draw(essential, workers, examples, seed)
            examples -= self.count - before
            seed += 1

    def _draw(self, essential: list[Case], workers: list[Worker], examples: int, seed: int) -> None:
        regimes = list(dict.fromkeys(case.regime for case in essential))

        @hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )
        @hypothesis.seed(seed)
        @hypothesis.given(
            st.sampled_from(essential), st.sampled_from(regimes), st.integers(0, MAX_SEED)
        )
        def check(base: Case, regime: str, seed: int) -> None:
            asked = [worker for worker in workers if worker in self.live]
            worst = self.case(replace(base, regime=regime, seed=seed), asked)
            hypothesis.target(min(worst, 1e6), label="error / bound")
            if worst > 1.0 or any(self.tallies[worker].unanswered.count for worker in workers):
                raise _BeyondError

        try:
            check()
        except _BeyondError:
            pass
        except hypothesis.errors.FlakyFailure:
            # The same case, judged twice, differed: what failed is recorded either way.
            pass


def _weights(case: Case) -> int:
    return sum(q.size for q in getattr(case.op, "parameters", ()))


class _BeyondError(Exception):
    """A case beyond its bound, or one without an answer."""
