"""A conformance run: every property on every column, essential cases first, then drawn ones."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.configuration
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import (
    COMPILER,
    Cell,
    Column,
    PropertyInfo,
    Results,
    finite,
)
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.running.answers import started
from nfspec.conformance.running.command import needed_folder
from nfspec.conformance.running.compiling import compiled
from nfspec.conformance.running.journal import FINISHED, Journal
from nfspec.conformance.running.judging import Trial
from nfspec.conformance.running.offers import lacking, lacking_methods, notes
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import InputError
from nfspec.plan.free_memory import require_free_memory


@dataclass(frozen=True)
class Status:
    """The present step of a run.

    Attributes:
        text: A few words.
        counting: True if it is one of many that follow each other, one for each case.
    """

    text: str
    counting: bool = False


Progress = Callable[[Results, Status], None]
WorkersOf = Callable[[Settings, str], AbstractContextManager[list[Worker]]]


def essential_cases(asked: Property, about: Target, mode: str, seed: int) -> list[Case]:
    """The essential cases of a property in a mode.

    Args:
        asked: The property.
        about: The spec's shapes, or the general grid.
        mode: Mode of the arithmetic.
        seed: Random seed of the run, which is added to each case's own.
    """
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


def asked_of(settings: Settings, about: Target) -> list[Property]:
    """The chosen properties that have cases, in a mode of the run."""
    modes = {*settings.modes}
    return [p for p in chosen(settings) if modes & {*p.modes} and list(p.cases(about))]


def fingerprint(settings: Settings, about: Target) -> dict[str, Any]:
    """The settings that must be the same for a run to be resumed."""
    fields = {**asdict(settings), "digest": about.spec.digest}
    del fields["timeout"]
    return json.loads(json.dumps(fields))


def run(
    settings: Settings,
    folder: Path | None = None,
    *,
    resume: bool = False,
    progress: Progress = lambda results, status: None,
    workers_of: WorkersOf = started,
) -> Results:
    """Run the properties. `nfspec.conformance.conform` also judges deviations and writes reports.

    Args:
        settings: Settings of the run.
        folder: Folder of the journal, from which a run can be resumed. Without one, no journal is
            kept.
        resume: Go on with the run whose journal is in `folder`.
        progress: Called with the results so far, and a text that says what is being done.
        workers_of: Function of the settings and a mode that gives the started workers, one for each
            subject, as a context.

    Raises:
        InputError, SpecError: The settings cannot be used.
    """
    about = target(settings.source)
    asked = asked_of(settings, about)
    if any(case.spec and not case.reduced for p in asked for case in p.cases(about)):
        require_free_memory(about.plan, "test", 1 + len(settings.subjects))
    journal = Journal(folder, fingerprint(settings, about), resume)
    spec = {"name": about.spec.name, "source": about.source, "digest": about.spec.digest}
    results = Results(
        settings={k: v for k, v in asdict(settings).items() if k != "source"},
        spec=None if about.general else spec,
        columns=[],
        properties=[PropertyInfo(p.id, p.tier, p.title) for p in asked],
        cells=journal.cells,
        folder=needed_folder(settings.subjects, settings.source or ""),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    begun = time.perf_counter()
    under_way = _Run(settings, about, results, journal, progress, workers_of)
    # The frameworks have the other core; two spinning threads here would slow everything down.
    with threadpool_limits(1), _no_traces():
        for mode in settings.modes:
            under_way.mode(mode, [p for p in asked if mode in p.modes])
    if any(column.facts for column in results.columns):
        journal.add(FINISHED)
    results.problems += lacking(results, settings.must_offer)
    results.notes += notes(results, settings.must_offer)
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


@dataclass(frozen=True)
class _Run:
    """A run under way, whose results grow."""

    settings: Settings
    about: Target
    results: Results
    journal: Journal
    progress: Progress
    workers_of: WorkersOf

    def mode(self, mode: str, properties: list[Property]) -> None:
        """Run properties in a mode, but for the cells that an earlier run has finished."""
        subjects, results = self.settings.subjects, self.results
        names = [Column(subject, "", self.settings.device, mode).name for subject in subjects]
        left = [p for p in properties if any(results.cell(p.id, name) is None for name in names)]
        self.progress(results, Status(f"{mode}: starting {', '.join(subjects)}"))
        with self.workers_of(self.settings, mode) as workers:
            at = len(results.columns)
            results.columns += [worker.column for worker in workers]
            for worker in workers:
                must_offer = self.settings.must_offer
                results.problems += lacking_methods(results, worker, must_offer)
            for asked in left:
                self._property(asked, mode, workers)
                results.columns[at:] = [worker.column for worker in workers]
                self.progress(results, Status(f"{asked.id} {mode}: done"))

    def _property(self, asked: Property, mode: str, workers: list[Worker]) -> None:
        begun = time.perf_counter()

        def counted(count: int) -> None:
            status = Status(f"{asked.id} {mode}: {count} cases", counting=True)
            self.progress(self.results, status)

        left = [w for w in workers if self.results.cell(asked.id, w.column.name) is None]
        essential = essential_cases(asked, self.about, mode, self.settings.seed)
        if self.settings.device == COMPILER:
            for worker in left:
                self._add(compiled(asked, worker, essential, counted))
            return
        trial = Trial(asked, left, counted)
        for case in essential:
            trial.case(case, trial.live)
        if asked.draws:
            trial.draw(essential, self.settings.examples, self.settings.seed)
        must = asked.must(essential)
        seconds = time.perf_counter() - begun
        for worker, tally in trial.tallies.items():
            self._add(tally.cell(asked, worker.column.name, must, seconds))

    def _add(self, cell: Cell) -> None:
        self.results.cells.append(cell)
        if any(column.facts for column in self.results.columns):
            self.journal.add({"cell": finite(asdict(cell))})
