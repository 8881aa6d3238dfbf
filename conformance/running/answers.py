"""A case put to several workers: sent to all of them, answered by each, and judged.

A run, the search for faults, the search for conventions and a replay all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.results import Verdict
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, Judgement, Outputs, judge
from nfspec.conformance.running.command import command_of
from nfspec.conformance.running.describe import describe, infinite
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.requests import FailureKind
from nfspec.conformance.workers.worker import Worker

# The verdict of a cell that ended by a failure.
VERDICTS: dict[FailureKind, Verdict] = {
    "error": "error",
    "not offered": "not offered",
    "no method": "not offered",
    "missing": "missing",
    "unusable": "error",
    "crashed": "crashed",
    "hung": "hung",
    "refused": "error",
}


@contextmanager
def started(settings: Settings, mode: str, fault: str = "") -> Iterator[list[Worker]]:
    """Workers that have started, one for each subject; they are closed in the end.

    Raises:
        InputError: There is no such subject.
    """
    workers = [
        Worker(subject, settings.device, mode, settings.timeout, fault)
        for subject in settings.subjects
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait()
        yield workers
    finally:
        for worker in workers:
            worker.close()


@dataclass(frozen=True)
class PreparedCase:
    """A case with its arrays and what is expected, each computed once, when first needed."""

    case: Case

    @property
    def asked(self) -> Property:
        """The property that the case tests."""
        return PROPERTIES[self.case.property]

    @cached_property
    def calls(self) -> list[Arrays]:
        return self.asked.calls(self.case)

    @property
    def sent(self) -> list[Arrays] | None:
        """The arrays, where a worker cannot make them itself."""
        return self.calls if self.asked.sent else None

    @cached_property
    def expected(self) -> Expected:
        return self.asked.expect(self.case, self.calls)


@dataclass(frozen=True, eq=False)
class Answer:
    """A worker's outputs of a case, judged.

    Attributes:
        worker: The worker that was asked.
        prepared: The case.
        outputs: The outputs as the worker sent them.
        compared: The outputs as they are compared, after the property's `reduce`.
        judgement: Their distance to the expected values, relative to the bound.
    """

    worker: Worker
    prepared: PreparedCase
    outputs: Outputs
    compared: Outputs
    judgement: Judgement

    @property
    def ratio(self) -> float:
        """The largest |error| / bound."""
        return self.judgement.ratio

    @property
    def beyond(self) -> bool:
        """True if some output is beyond its bound."""
        return self.ratio > 1.0

    @property
    def infinite(self) -> str:
        """The reason for an infinite ratio; empty for a finite one."""
        return infinite(self.judgement.worst, self.compared, self.prepared.expected)

    @property
    def wide(self) -> bool:
        """True if a function of tensors answered in float64."""
        of_tensors = self.prepared.asked.request in ("call", "vjp", "twice", "network", "block")
        return of_tensors and any(y.dtype == np.float64 for y in self.outputs.values())

    def text(self) -> str:
        """The judgement in words."""
        prepared = self.prepared
        command = command_of(prepared.case, self.worker)
        return describe(prepared.case, self.judgement, self.compared, prepared.expected, command)


def ask(prepared: PreparedCase, workers: Iterable[Worker]) -> dict[Worker, Answer | WorkerError]:
    """Put a case to workers, which compute at the same time.

    Returns:
        Each worker's answer, or the error for which it has none.
    """
    replies: dict[Worker, Answer | WorkerError] = {}
    sent = []
    for worker in workers:
        try:
            worker.require(prepared.asked.method)
            worker.send(prepared.case, prepared.sent)
            sent.append(worker)
        except WorkerError as error:
            replies[worker] = error
    if sent:
        prepared.expected  # noqa: B018  (computed while the workers compute)
    for worker in sent:
        try:
            outputs = worker.receive(prepared.case, prepared.calls)
            replies[worker] = _judged(worker, prepared, outputs)
        except WorkerError as error:
            replies[worker] = error
    return replies


def _judged(worker: Worker, prepared: PreparedCase, outputs: Outputs) -> Answer:
    """The answer that outputs are.

    Raises:
        WorkerError: They are nothing that can be compared, such as text, or of a shape that the
            property cannot put into relation.
    """
    try:
        compared = prepared.asked.reduce(prepared.case, prepared.calls, outputs)
        return Answer(worker, prepared, outputs, compared, judge(compared, prepared.expected))
    except Exception as error:  # whatever such outputs lead to
        shapes = ", ".join(f"{name} {np.shape(y)}" for name, y in list(outputs.items())[:20])
        message = f"{worker.subject}: the outputs cannot be compared ({shapes}): {error}"
        raise WorkerError(message) from None
