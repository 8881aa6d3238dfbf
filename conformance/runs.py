"""Complete runs: properties, known deviations, explanations and reports; or seeded faults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from nfspec import files
from nfspec.conformance import report
from nfspec.conformance.cases.results import Results
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.conventions.explain import explain
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report.faults import faults_markdown
from nfspec.conformance.running import deviations as known_deviations
from nfspec.conformance.running.alone import try_alone
from nfspec.conformance.running.journal import JOURNAL, holds_finished
from nfspec.conformance.running.kill import KillMatrix, kill_matrix
from nfspec.conformance.running.limits import limits
from nfspec.conformance.running.run import Progress, asked_of, fingerprint, run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects.loading import place
from nfspec.console import say
from nfspec.errors import InputError
from nfspec.outputs import alone, require_own

FAULTS_JSON, FAULTS_MD = "faults.json", "FAULTS.md"


def conform(
    settings: Settings,
    folder: str | Path | None = None,
    *,
    deviations: str | Path | None = None,
    required: tuple[str, ...] = (),
    resume: bool = False,
    force: bool = False,
    explained: bool = True,
    progress: Progress = lambda results, status: None,
) -> Results:
    """Test implementations against the float64 reference, as `nfspec conform` does.

    Args:
        settings: Settings of the run.
        folder: Folder for the journal and for results.json, REPORT.md and report.html. Without one,
            and where no subject starts, nothing is written.
        deviations: A file of known deviations; the one that comes with nfspec if None.
        required: Subjects without which a run has a problem.
        resume: Go on with the run whose journal is in `folder`.
        force: Replace an earlier run in `folder`. One that is finished and had the same settings is
            replaced without.
        explained: True to look for the conventions or the mistake that a failure follows from.
        progress: Called with the results so far, and a text that says what is being done.

    Returns:
        The results, with verdict, problems and explanations.

    Raises:
        InputError, SpecError, DeviationError: The settings or files cannot be used, or `folder` has
            files of an earlier run.
        OSError: A file cannot be written; `filename` is its path.
    """
    out = None if folder is None else Path(folder)
    entries = known_deviations.load(None if deviations is None else Path(deviations))
    about = target(settings.source)
    asked_of(settings, about)  # what cannot be used is said before the folder is looked at
    for subject in settings.subjects:
        place(subject)
    again = not (force or resume) and _again(out, settings, about)
    with _own(out, (JOURNAL, *report.FILES), resume, force or again):
        results = run(settings, out, resume=resume, progress=progress)
        left_out = set(PROPERTIES) - {info.id for info in results.properties}
        today = datetime.now(UTC).date()
        results.problems += known_deviations.apply(results, entries, today, left_out)
        results.problems += [f"required: {reason}" for reason in absent(results, required)]
        kept = out if started(results) else None
        if kept is not None:
            report.write(results, kept)  # an explanation takes long, and may end in an error
        if explained:
            _explain(settings, results, progress)
        if kept is not None:
            report.write(results, kept)
    return results


def started(results: Results) -> bool:
    """True if a subject of a run started; a run without one leaves no files."""
    return any(column.facts for column in results.columns)


def _again(out: Path | None, settings: Settings, about: Target) -> bool:
    """True if a folder has a finished run of the same settings, which is replaced."""
    if out is None or not holds_finished(out, fingerprint(settings, about)):
        return False
    say(f"{out}: the finished run of the same settings is replaced")
    return True


def _explain(settings: Settings, results: Results, progress: Progress) -> None:
    """Add the explanations to results. Whatever goes wrong there loses no result."""
    try:
        for entry in explain(settings, results, progress):
            results.explanations.append(entry)  # one at a time: an error loses none before it
    except Exception as error:
        reason = str(error).split("\n")[0]
        results.notes.append(
            f"the search for explanations ended in an error, {type(error).__name__}: {reason}"
        )


def absent(results: Results, required: tuple[str, ...]) -> list[str]:
    """The required subjects that did not run, and why, a line for each."""
    ran = {column.subject for column in results.columns}
    return [
        *(
            f"{column.name}: {column.problem}"
            for column in results.columns
            if column.subject in required and column.problem
        ),
        *(f"{name}: not among the subjects" for name in required if name not in ran),
    ]


def seed_faults(
    settings: Settings,
    folder: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> KillMatrix:
    """Prove that the properties can fail: seed every fault, find the detection limits, and write
    faults.json and FAULTS.md.

    Args:
        settings: Settings of the run; essential cases alone, faults in the first mode alone.
        folder: Folder of the two files.
        resume: Go on with the faults.json in `folder`.
        force: Replace an earlier one in `folder`.
        progress: Called with a text that says what was done.

    Raises:
        InputError, SpecError: The settings cannot be used, or `folder` has files of an earlier run.
        OSError: A file cannot be written; `filename` is its path.
    """
    out = Path(folder)
    path = out / FAULTS_JSON

    def save(matrix: KillMatrix, message: str) -> None:
        progress(message)
        files.write(path, matrix.to_json())

    with _own(out, (FAULTS_JSON, FAULTS_MD), resume, force):
        known = KillMatrix.read(path, settings) if resume else None
        matrix = kill_matrix(settings, (), save, known)
        try_alone(settings, matrix, save)
        matrix.limits = limits(settings, progress)
        save(matrix, "done")
        files.write(out / FAULTS_MD, faults_markdown(matrix))
    return matrix


@contextmanager
def _own(out: Path | None, names: tuple[str, ...], resume: bool, force: bool) -> Iterator[None]:
    """Hold a folder alone, if it has no files of an earlier run.

    Args:
        out: The folder; None for none.
        names: The files of such a run, first the one that it always has.
        resume, force: True if an earlier run may be gone on with, or replaced.
    """
    if out is None:
        if resume:
            raise InputError("resume: expected the folder of the run; found none")
        yield
        return
    _require_free(out, names, resume, force)
    with alone(out):
        _require_free(out, names, resume, force)  # it may have changed before it was held
        yield


def _require_free(out: Path, names: tuple[str, ...], resume: bool, force: bool) -> None:
    """Refuse to begin where an earlier run, finished or not, or something else lies."""
    if resume or force:
        return
    if there := [name for name in names if os.path.lexists(out / name)]:
        raise InputError(
            f"{out} holds {', '.join(there)} of an earlier run, left as it is; go on with "
            "--resume, start anew with --force, or give another --out"
        )
    require_own(out, names[0], force=False)
