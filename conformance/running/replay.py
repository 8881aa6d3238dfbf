"""One case again, in words."""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.faults import fault_named
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, judge
from nfspec.conformance.running.describe import describe
from nfspec.conformance.workers.columns import Runner
from nfspec.conformance.workers.pool import WorkerError
from nfspec.errors import InputError, NfspecError, suggest

TIMEOUT = 1_800.0


def _prepared(asked: Property, case: Case) -> tuple[list[Arrays], Expected]:
    try:
        calls = asked.calls(case)
        return calls, asked.expect(case, calls)
    except NfspecError:
        raise
    except Exception as error:  # of a case that somebody wrote, whatever is wrong with it
        message = f"{type(error).__name__}: {error}"
        raise InputError(f"{case.property}: not a case of this property: {message}") from None


@dataclass(frozen=True)
class Answer:
    """What a subject answered.

    Attributes:
        ratio: The largest |error| / bound; None if there was no answer.
        text: The finding in words, or what went wrong.
    """

    ratio: float | None
    text: str


def replay(line: str, subjects: tuple[str, ...], device: str, fault: str = "") -> list[Answer]:
    """Run a case.

    Args:
        line: The case's JSON.
        subjects: As `nfspec.conformance.subjects` finds them.
        device: cpu, gpu or tpu.
        fault: Name of a fault to inject; empty for none.

    Raises:
        InputError: No such case, property or fault.
    """
    case = Case.parse(line)
    if case.property not in PROPERTIES:
        near = suggest(case.property, PROPERTIES)
        raise InputError(f'no property "{case.property}"{near}')
    fault_named(fault)
    asked = PROPERTIES[case.property]
    calls, expected = _prepared(asked, case)
    answers = []
    for subject in subjects:
        runner = Runner(subject, device, case.mode, TIMEOUT, fault)
        try:
            runner.start()
            runner.meet()
            runner.send(case, calls if asked.sent else None)
            outputs = asked.reduce(case, calls, runner.receive(case, calls))
        except WorkerError as error:
            answers.append(Answer(None, f"{runner.column.name}: {error.kind}\n{error}"))
            continue
        finally:
            runner.close()
        judgement = judge(outputs, expected)
        text = describe(case, judgement, outputs, expected)
        verdict = "within its bound" if judgement.ratio <= 1.0 else "BEYOND ITS BOUND"
        answers.append(Answer(judgement.ratio, f"{runner.column.name}: {verdict}\n{text}"))
    return answers
