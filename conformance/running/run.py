"""A conformance run: every property on every column, cases first essential and then drawn."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.configuration
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import (
    Column,
    PropertyInfo,
    Results,
    finite,
)
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.running.journal import Journal
from nfspec.conformance.running.judging import Trial
from nfspec.conformance.workers.columns import Runner
from nfspec.errors import InputError
from nfspec.plan.free_memory import require_free_memory

Progress = Callable[[Results, str], None]


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        source: Name or path of a spec; None for the general grid.
        subjects: As `nfspec.conformance.subjects` finds them.
        device: cpu, gpu or tpu.
        modes: Some of f32, tf32, bf16, f16.
        examples: Cases to draw for each property that is worth drawing for, besides the essential.
        seed: Seed of the cases.
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
        settings: Settings of the run.
        folder: Folder of the journal, from which a run can be resumed. Without one, no journal is
            kept.
        resume: Go on with the run whose journal is in `folder`.
        progress: Told the results so far, and what is being done.

    Raises:
        InputError, SpecError: The settings cannot be used.
    """
    about = target(settings.source)
    asked = [p for p in chosen(settings) if {*p.modes} & {*settings.modes} and list(p.cases(about))]
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
