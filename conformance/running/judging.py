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
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker

MAX_SEED = 2**20
MOST_WEIGHTS = 2**18  # of an operation that cases are drawn for


@dataclass
class Tally:
    """The cases of one property on one column, counted.

    Attributes:
        ratios: Each judged case's largest |error| / bound.
        worst, worst_case: The largest of them, and its case.
        message: Description of the worst case that is beyond its bound, or of the error.
        error: The error that ended it; None if none did.
        lacking: The error of a case that the subject has no counterpart of; None if it has all.
        coverage: Regime to the number of cases that met it.
    """

    ratios: list[float] = field(default_factory=list)
    worst: float = -1.0
    worst_case: Case | None = None
    message: str = ""
    error: WorkerError | None = None
    lacking: WorkerError | None = None
    coverage: dict[str, int] = field(default_factory=dict)

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

    def judged(self, case: Case, answer: Answer) -> None:
        """Count an answer."""
        worst = self.add(case, answer.ratio, answer.prepared.expected.met)
        if worst and answer.beyond:
            self.message = answer.text()

    def failed(self, case: Case, error: WorkerError) -> None:
        """Note an error: the end, unless this case alone is not offered."""
        verdict = VERDICTS[error.kind]
        if verdict == "not offered":
            self.lacking = error
            return
        self.error, self.message = error, str(error)
        if verdict != "missing":
            self.message += f"\nat {case.line()}"
            self.worst_case = case

    def cell(self, asked: Property, column: str, must: frozenset[str], seconds: float) -> Cell:
        """The cell of the table, once all cases were counted."""
        if self.lacking and not self.error and not self.ratios:
            return Cell(
                asked.id,
                column,
                "not offered",
                message=str(self.lacking),
                seconds=seconds,
                no_method=self.lacking.kind == "no method",
            )
        verdict, message = self._verdict(must)
        if self.lacking:
            message = f"{message}\nnot offered for every case: {self.lacking}".strip()
        return Cell(
            property=asked.id,
            column=column,
            verdict=verdict,
            cases=len(self.ratios),
            median=float(np.median(self.ratios)) if self.ratios else 0.0,
            worst=max(self.worst, 0.0),
            histogram=histogram(self.ratios),
            worst_case=self.worst_case.fields() if self.worst_case else None,
            message=message,
            coverage=dict(sorted(self.coverage.items())),
            seconds=seconds,
        )

    def _verdict(self, must: frozenset[str]) -> tuple[Verdict, str]:
        """The cell's verdict and message, where there were answers."""
        if self.error:
            return VERDICTS[self.error.kind], self.message
        if self.worst > 1.0:
            return "fail", self.message
        if unmet := sorted(must - set(self.coverage)):
            return "uncovered", f"no case met: {', '.join(unmet)}"
        return "pass", self.message


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
        """The workers that no error has ended."""
        return [worker for worker, tally in self.tallies.items() if not tally.error]

    def case(self, case: Case, workers: list[Worker]) -> float:
        """Run one case; the largest ratio of all answers, 0 if there is none."""
        ratios = [0.0]
        for worker, answer in ask(PreparedCase(case), workers).items():
            if isinstance(answer, WorkerError):
                self.tallies[worker].failed(case, answer)
            else:
                self.tallies[worker].judged(case, answer)
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
            workers = [w for w in self.live if self.tallies[w].worst <= 1.0]
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
            worst = self.case(replace(base, regime=regime, seed=seed), workers)
            hypothesis.target(min(worst, 1e6), label="error / bound")
            if worst > 1.0 or any(self.tallies[worker].error for worker in workers):
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
    """A case beyond its bound, or one that ended a worker."""
