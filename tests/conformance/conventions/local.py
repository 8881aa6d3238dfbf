"""Explanations of subjects of NumPy, asked within this process: no worker has to start."""

import warnings
from contextlib import contextmanager

import pytest

from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.cases.target import target
from nfspec.conformance.conventions import explain as module
from nfspec.conformance.conventions.explain import explain
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import PreparedCase, ask
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.requests import CaseRequest, FactsRequest
from nfspec.conformance.workers.server import Server
from nfspec.conformance.workers.worker import Worker

# The conventions of DeepMind, in a network of two small stages.
SPEC = """\
schema = "nfspec/1"
name = "small"
extends = "nfnet-f0"

[stem]
width = [16, 16]
kernel = 3
stride = [2, 1]

[stages]
depth = [1, 2]
width = [16, 32]
stride = [1, 2]
expansion = 0.5
group_width = 8
kernel = 3
alpha = 0.2
attention = "se"

[head]
conv_width = 32
conv = "width"
classes = 5
"""


class LocalWorker(Worker):
    """Answers by a subject in this process."""

    def __init__(self, subject, mode):
        super().__init__(subject, "cpu", mode, 60.0)
        self.server = Server(subject, mode)
        self.facts = self.server.answer(FactsRequest())

    def send(self, case, arrays):
        self.request = CaseRequest(case, "", arrays)

    def receive(self, case, calls):
        try:
            with warnings.catch_warnings(action="ignore"):  # a subject may divide by 0
                return self.server.answer(self.request)["outputs"]
        except NotOffered as error:
            raise WorkerError(str(error), "not offered") from None
        except Exception as error:
            raise WorkerError(str(error)) from None


@contextmanager
def within(settings, mode):
    """The workers of a run, in this process."""
    yield [LocalWorker(name, mode) for name in settings.subjects]


def explanations(subject, spec, ids=(), mode="f32"):
    """The failing properties of a subject, and the entries of its explanations by property.

    Args:
        subject: Its class.
        spec: Path of the spec that it is asked for.
        ids: Properties to test; all that `explain` looks into if empty.
        mode: Mode of the arithmetic.
    """
    settings = Settings(str(spec), (f"{subject.__module__}:{subject.__qualname__}",), modes=(mode,))
    worker = LocalWorker(settings.subjects[0], mode)
    column = Column(settings.subjects[0], "numpy", "cpu", mode)
    results = Results({}, None, [column], [])
    for name in ids or [p.id for p in PROPERTIES.values() if module._explicable(p)]:
        cell = _cell(worker, column, name, target(str(spec)))
        results.cells += [cell] if cell else []

    @contextmanager
    def started(settings, mode):
        yield [worker]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "started", started)
        entries = list(explain(settings, results))
    failed = [cell.property for cell in results.cells if cell.verdict == "fail"]
    return failed, {entry["property"]: entry for entry in entries}


def _cell(worker, column, name, about):
    """The cell of a property; None where nothing is offered."""
    asked = PROPERTIES[name]
    if worker.mode not in asked.modes:
        return None
    cases = essential_cases(asked, about, worker.mode, 0)
    replies = [ask(PreparedCase(case), [worker])[worker] for case in cases]
    ratios = [reply.ratio for reply in replies if not isinstance(reply, WorkerError)]
    if not ratios:
        return None
    verdict = "fail" if max(ratios) > 1.0 else "pass"
    return Cell(name, column.name, verdict, len(ratios), worst=max(ratios))
