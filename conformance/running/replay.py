"""One case again, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import COMPILER, Verdict
from nfspec.conformance.faults import fault_named
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import VERDICTS, Answer, PreparedCase, ask, started
from nfspec.conformance.running.command import TIMEOUT
from nfspec.conformance.running.compiling import programs_of
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import InputError, NfspecError, suggest

ReplayVerdict = Literal["within its bound", "BEYOND ITS BOUND"] | Verdict


@dataclass(frozen=True)
class Replayed:
    """A case on one column.

    Attributes:
        column: Name of the column.
        verdict: The place of the answer within or beyond its bound, or the reason for no answer.
        ratio: The largest |error| / bound; None if there is no answer.
        text: The judgement in words, or the error.
    """

    column: str
    verdict: ReplayVerdict
    ratio: float | None
    text: str


def replay(
    line: str,
    subjects: tuple[str, ...],
    device: str,
    fault: str = "",
    timeout: float = TIMEOUT,
) -> list[Replayed]:
    """Run a case on one subject after another.

    Args:
        line: The case's JSON.
        subjects: Names that `nfspec.conformance.subjects` knows.
        device: cpu, gpu, tpu or tpu-compiler.
        fault: Name of a fault to inject; empty for none.
        timeout: Seconds to wait for an answer.

    Raises:
        InputError: No such case, property, subject or fault.
    """
    case = Case.parse(line)
    if case.property not in PROPERTIES:
        near = suggest(case.property, PROPERTIES)
        raise InputError(f'no property "{case.property}"{near}')
    fault_named(fault)
    prepared = PreparedCase(case) if device == COMPILER else _prepared(case)
    replayed = []
    for subject in subjects:
        settings = Settings(subjects=(subject,), device=device, timeout=timeout)
        with started(settings, case.mode, fault) as workers:
            if device == COMPILER:
                replayed += [_compiled(prepared, worker) for worker in workers]
                continue
            for worker, answer in ask(prepared, workers).items():
                replayed.append(_replayed(worker.column.name, answer))
    return replayed


def _prepared(case: Case) -> PreparedCase:
    """A case with its arrays and expectation, which somebody may have written by hand."""
    prepared = PreparedCase(case)
    try:
        prepared.expected  # noqa: B018  (computed here, where its errors are told)
    except NfspecError:
        raise
    except Exception as error:  # whatever is wrong with such a case
        message = f"{type(error).__name__}: {error}"
        raise InputError(f"{case.property}: not a case of this property: {message}") from None
    return prepared


def _compiled(prepared: PreparedCase, worker: Worker) -> Replayed:
    try:
        count = programs_of(prepared, worker)
    except WorkerError as error:
        return _replayed(worker.column.name, error)
    text = f"{count} programs, compiled for {worker.facts['compiled_for']}"
    return Replayed(worker.column.name, "compiles" if count else "not offered", 0.0, text)


def _replayed(column: str, answer: Answer | WorkerError) -> Replayed:
    if isinstance(answer, WorkerError):
        return Replayed(column, VERDICTS[answer.kind], None, str(answer))
    verdict: ReplayVerdict = "BEYOND ITS BOUND" if answer.beyond else "within its bound"
    return Replayed(column, verdict, answer.ratio, answer.text())


def status(replayed: Iterable[Replayed]) -> int:
    """Exit status: 0 if every answer is within its bound, 1 if not, 2 if nobody answered."""
    ratios = [each.ratio for each in replayed]
    if all(ratio is None for ratio in ratios):
        return 2
    return int(any(each is None or each > 1.0 for each in ratios))
