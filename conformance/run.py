"""A conformance run: every property on every column, cases first essential and then drawn."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.configuration
import numpy as np
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from nfspec.conformance.case import Arrays, Case
from nfspec.conformance.columns import Runner
from nfspec.conformance.describe import describe
from nfspec.conformance.pool import WorkerError
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, judge
from nfspec.conformance.results import (
    Cell,
    Column,
    PropertyInfo,
    Results,
    cell_of,
    finite,
    histogram,
)
from nfspec.conformance.target import Target, target
from nfspec.errors import InputError
from nfspec.weights.files import replacing

JOURNAL = "journal.jsonl"
MAX_SEED = 2**20
DRAWN = 2**18  # weights of an operation that cases are drawn for

Progress = Callable[[Results, str], None]


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        source: Name or path of a spec; None for the general grid.
        subjects: As `nfspec.conformance.subjects` finds them.
        device: cpu, gpu or tpu.
        modes: Of f32, tf32, bf16, f16.
        examples: Cases to draw for each property that is worth drawing for, besides the essential.
        seed: Of the cases.
        properties: Ids; all if empty.
        timeout: Seconds to wait for one reply.
    """

    source: str | None = None
    subjects: tuple[str, ...] = ("jax", "torch", "tensorflow")
    device: str = "cpu"
    modes: tuple[str, ...] = ("f32",)
    examples: int = 25
    seed: int = 0
    properties: tuple[str, ...] = ()
    timeout: float = 600.0


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


def essential_cases(asked: Property, about: Target, mode: str, seed: int) -> list[Case]:
    """The property's cases in a mode, seeds counted on from the run's."""
    return [replace(case, mode=mode, seed=case.seed + seed) for case in asked.cases(about)]


def chosen(settings: Settings) -> list[Property]:
    """The properties of a run.

    Raises:
        InputError: An id is not known.
    """
    unknown = [name for name in settings.properties if name not in PROPERTIES]
    if unknown:
        known = ", ".join(PROPERTIES)
        raise InputError(f"--properties: no {', '.join(unknown)}; expected some of {known}")
    return [
        p for p in PROPERTIES.values() if not settings.properties or p.id in settings.properties
    ]


def fingerprint(settings: Settings, about: Target) -> dict[str, Any]:
    """What has to be the same for a run to be resumed."""
    fields = {**asdict(settings), "digest": about.spec.digest}
    del fields["timeout"]
    return json.loads(json.dumps(fields))


class Journal:
    """Finished cells, one line of JSON each, so that an interrupted run loses the present one."""

    def __init__(self, folder: Path | None, about: dict[str, Any], resume: bool):
        self.path = folder / JOURNAL if folder else None
        self.cells: list[Cell] = []
        if self.path is None:
            return
        if resume:
            self._read(about)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"run": about}) + "\n", encoding="utf-8")

    def _read(self, about: dict[str, Any]) -> None:
        assert self.path is not None
        if not self.path.is_file():
            raise InputError(f"--resume: {self.path} does not exist; start without --resume")
        lines = self.path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if _whole(line)]
        if not found or found[0].get("run") != about:
            raise InputError(
                f"--resume: {self.path} is of a run with other settings; start without --resume, "
                "or give another --out"
            )
        self.cells = [cell_of(entry["cell"]) for entry in found[1:]]
        with replacing(self.path) as temporary:  # without a line that was cut short
            text = "".join(f"{json.dumps(entry)}\n" for entry in found)
            temporary.write_text(text, encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole(line: str) -> bool:
    """Whether a line was written to its end."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@contextmanager
def columns(settings: Settings, mode: str, fault: str = "") -> Iterator[list[Runner]]:
    """Started workers, one for each subject."""
    runners = [
        Runner(subject, settings.device, mode, settings.timeout, fault)
        for subject in settings.subjects
    ]
    try:
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.meet()
        yield runners
    finally:
        for runner in runners:
            runner.close()


def run(
    settings: Settings,
    folder: Path | None = None,
    *,
    resume: bool = False,
    progress: Progress = lambda results, status: None,
) -> Results:
    """Run the properties.

    Args:
        settings: What to run.
        folder: Where the journal goes, from which a run can be resumed; None for nowhere.
        resume: Go on with the run whose journal is in `folder`.
        progress: Told the results so far, and what is being done.

    Raises:
        InputError, SpecError: The settings cannot be used.
    """
    about = target(settings.source)
    asked = [p for p in chosen(settings) if {*p.modes} & {*settings.modes} and list(p.cases(about))]
    journal = Journal(folder, fingerprint(settings, about), resume)
    spec = {"name": about.spec.name, "source": about.source, "digest": about.spec.digest}
    results = Results(
        settings={k: v for k, v in asdict(settings).items() if k != "source"},
        spec=None if about.general else spec,
        columns=[],
        properties=[PropertyInfo(p.id, p.tier, p.title) for p in asked],
        cells=journal.cells,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    begun = time.perf_counter()
    # The frameworks have the other core; two spinning threads here would slow everything down.
    with threadpool_limits(1), _no_traces():
        for mode in settings.modes:
            _run_mode(settings, about, asked, mode, results, journal, progress)
    results.seconds = time.perf_counter() - begun
    return results


@contextmanager
def _no_traces() -> Iterator[None]:
    """Keep Hypothesis from leaving its folder in the present one."""
    with tempfile.TemporaryDirectory(prefix="nfspec-") as folder:
        hypothesis.configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            hypothesis.configuration.set_hypothesis_home_dir(None)


def _run_mode(
    settings: Settings,
    about: Target,
    asked: list[Property],
    mode: str,
    results: Results,
    journal: Journal,
    progress: Progress,
) -> None:
    names = [Column(subject, "", settings.device, mode).name for subject in settings.subjects]
    wanted = [p for p in asked if mode in p.modes]
    left = [p for p in wanted if any(results.cell(p.id, name) is None for name in names)]
    progress(results, f"{mode}: starting {', '.join(settings.subjects)}")
    with columns(settings, mode) as runners:
        at = len(results.columns)
        results.columns += [runner.column for runner in runners]
        for p in left:
            started = time.perf_counter()
            missing = [r for r in runners if results.cell(p.id, r.column.name) is None]
            trial = Trial(
                p,
                missing,
                lambda count, p=p: progress(results, f"{p.id} {mode}: {count} cases"),  # type: ignore[misc]
            )
            essential = essential_cases(p, about, mode, settings.seed)
            for case in essential:
                trial.case(case, trial.live)
            if p.draws:
                trial.draw(essential, settings.examples, settings.seed)
            must = p.must(essential)
            seconds = time.perf_counter() - started
            for runner, tally in trial.tallies.items():
                cell = tally.cell(p, runner.column.name, must, seconds)
                results.cells.append(cell)
                journal.add({"cell": finite(asdict(cell))})
            results.columns[at:] = [runner.column for runner in runners]
            progress(results, f"{p.id} {mode}: done")
