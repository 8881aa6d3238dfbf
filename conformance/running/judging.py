"""One property in one mode: its cases run on every column, judged, and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis
import hypothesis.configuration
import numpy as np
from hypothesis import strategies as st

from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.results import (
    Cell,
    histogram,
)
from nfspec.conformance.properties import Property
from nfspec.conformance.properties.base import Expected, judge
from nfspec.conformance.running.describe import describe
from nfspec.conformance.workers.columns import Runner
from nfspec.conformance.workers.pool import WorkerError

MAX_SEED = 2**20
DRAWN = 2**18  # weights of an operation that cases are drawn for


@dataclass
class Tally:
    """What one column's cases of one property have come to."""

    ratios: list[float] = field(default_factory=list)
    worst: float = -1.0
    worst_case: Case | None = None
    message: str = ""
    kind: str = ""  # of the error that ended it
    lacking: str = ""  # what a case asked for that the subject does not offer
    coverage: dict[str, int] = field(default_factory=dict)

    def add(self, case: Case, ratio: float, met: Iterable[str]) -> bool:
        """Count a case; whether it is the worst so far. No number is as bad as can be."""
        ratio = math.inf if math.isnan(ratio) else ratio
        self.ratios.append(ratio)
        for name in met:
            self.coverage[name] = self.coverage.get(name, 0) + 1
        if ratio > self.worst:
            self.worst, self.worst_case = ratio, case
            return True
        return False

    def cell(self, asked: Property, column: str, must: frozenset[str], seconds: float) -> Cell:
        verdict: Any = self.kind or "pass"
        message = self.message
        if self.lacking and not self.kind and not self.ratios:
            return Cell(asked.id, column, "not offered", message=self.lacking, seconds=seconds)
        unmet = sorted(must - set(self.coverage))
        if not self.kind and self.worst > 1.0:
            verdict = "fail"
        elif not self.kind and unmet:
            verdict, message = "uncovered", f"no case met: {', '.join(unmet)}"
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


class Trial:
    """One property in one mode on some columns."""

    def __init__(self, asked: Property, runners: list[Runner], notify: Callable[[int], None]):
        self.asked = asked
        self.tallies = {runner: Tally() for runner in runners}
        self.notify = notify
        self.count = 0

    @property
    def live(self) -> list[Runner]:
        """The columns that have not failed to answer."""
        return [runner for runner, tally in self.tallies.items() if not tally.kind]

    def case(self, case: Case, runners: list[Runner]) -> dict[Runner, float]:
        """Run one case; each column's ratio, of those that answered."""
        calls = self.asked.calls(case)
        asked = [runner for runner in runners if self._send(runner, case, calls)]
        expected = self.asked.expect(case, calls) if asked else None
        ratios = {}
        for runner in asked:
            assert expected is not None
            ratio = self._judge(runner, case, calls, expected)
            if ratio is not None:
                ratios[runner] = ratio
        self.count += 1
        self.notify(self.count)
        return ratios

    def _send(self, runner: Runner, case: Case, calls: list[Arrays]) -> bool:
        try:
            runner.send(case, calls if self.asked.sent else None)
        except WorkerError as error:
            self._ended(runner, case, error)
            return False
        return True

    def _judge(
        self, runner: Runner, case: Case, calls: list[Arrays], expected: Expected
    ) -> float | None:
        try:
            outputs = self.asked.reduce(case, calls, runner.receive(case, calls))
        except WorkerError as error:
            self._ended(runner, case, error)
            return None
        judgement = judge(outputs, expected)
        tally = self.tallies[runner]
        if tally.add(case, judgement.ratio, expected.met) and judgement.ratio > 1.0:
            tally.message = describe(case, judgement, outputs, expected)
        return judgement.ratio

    def _ended(self, runner: Runner, case: Case, error: WorkerError) -> None:
        tally = self.tallies[runner]
        if error.kind == "not offered":
            tally.lacking = str(error)
            return
        tally.kind, tally.message = error.kind, str(error)
        if error.kind in ("error", "crashed", "hung"):
            tally.message += f"\nat {case.line()}"
            tally.worst_case = case

    def draw(self, essential: list[Case], examples: int, seed: int) -> None:
        """Let Hypothesis draw cases and climb towards the bound; a case beyond it is shrunk.

        Operations with many weights, each of which an essential case has tested, are left out.
        """
        essential = [case for case in essential if _weights(case) <= DRAWN] or essential
        while examples > 0:
            runners = [r for r in self.live if self.tallies[r].worst <= 1.0]
            if not runners:
                return
            before = self.count
            self._draw(essential, runners, examples, seed)
            examples -= self.count - before
            seed += 1

    def _draw(self, essential: list[Case], runners: list[Runner], examples: int, seed: int) -> None:
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
            ratios = self.case(replace(base, regime=regime, seed=seed), runners)
            worst = max(ratios.values(), default=0.0)
            hypothesis.target(min(worst, 1e6), label="error / bound")
            if worst > 1.0 or any(self.tallies[runner].kind for runner in runners):
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
