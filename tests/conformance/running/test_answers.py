"""A case put to workers: what is not offered costs nothing."""

import pytest

from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import PreparedCase, ask
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker


@pytest.mark.parametrize("name", ["AGC-01", "STEP-01"])  # one whose arrays are sent, too
def test_nothing_is_computed_for_a_method_that_no_subject_has(folder, monkeypatch, name):
    def fail(self):
        raise AssertionError("computed")

    monkeypatch.setattr(PreparedCase, "calls", property(fail))
    monkeypatch.setattr(PreparedCase, "expected", property(fail))
    prepared = PreparedCase(PROPERTIES[name].cases(target(None))[0])
    shy = Worker("fakes:Shy", "cpu", "f32", 60.0)
    try:
        shy.start()
        shy.wait()
        ((_, error),) = ask(prepared, [shy]).items()
    finally:
        shy.close()
    assert isinstance(error, WorkerError) and error.kind == "no method"
    assert str(error) == f"fakes:Shy: Shy has no {PROPERTIES[name].method}"
