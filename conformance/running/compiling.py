"""A property's programs compiled for a device that this machine need not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import Cell
from nfspec.conformance.properties import Property
from nfspec.conformance.running.answers import VERDICTS, PreparedCase
from nfspec.conformance.running.command import command_of
from nfspec.conformance.running.judging import MOST_DEATHS, Unanswered
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker

EAGER = "one operation runs after another, so that there is no program to compile"


def compiled(
    asked: Property, worker: Worker, cases: Iterable[Case], counted: Callable[[int], None]
) -> Cell:
    """The cell of a property whose programs are compiled; their numbers are not judged.

    Args:
        asked: The property.
        worker: Its answers say how many programs were compiled.
        cases: The cases.
        counted: Called with the number of cases so far, after each.
    """
    errors, done, unoffered, reason = Unanswered(), 0, 0, ""
    for number, case in enumerate(cases, 1):
        try:
            programs = programs_of(PreparedCase(case), worker)
        except WorkerError as error:
            if VERDICTS[error.kind] == "not offered":
                unoffered, reason = unoffered + 1, reason or str(error)
            else:
                errors.add(case, error, command_of(case, worker))
        else:
            done += programs > 0
            unoffered += programs == 0
            reason = reason if programs else reason or EAGER
        counted(number)
        if worker.given_up or errors.deaths >= MOST_DEATHS:
            break
    return Cell(
        asked.id,
        worker.column.name,
        errors.verdict if errors.count else "compiles" if done else "not offered",
        cases=0 if errors.count else done,
        worst_case=errors.case.fields() if errors.case else None,
        message="\n".join(filter(None, (errors.words(), reason))),
        unoffered=unoffered,
        unanswered=errors.count,
    )


def programs_of(prepared: PreparedCase, worker: Worker) -> int:
    """The number of programs that a case takes, once all are compiled.

    Raises:
        WorkerError: There is no answer, as where the compiler refuses a program.
    """
    worker.require(prepared.asked.method)
    worker.send(prepared.case, prepared.sent)
    worker.receive(prepared.case, prepared.calls)
    return worker.programs
