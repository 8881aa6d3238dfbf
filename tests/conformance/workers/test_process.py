"""The process of a worker: what comes back when a subject errs, dies or hangs."""

import os
import signal

import numpy as np
import pytest

from nfspec.conformance.workers.process import WorkerError, WorkerProcess
from nfspec.conformance.workers.requests import FactsRequest, ForwardRequest

from ..fakes import prepare


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    with WorkerProcess("fakes:Good") as process:
        yield process
    assert process.process.poll() is not None


def test_it_answers_and_outlives_an_error(process):
    with pytest.raises(WorkerError, match=r"fakes:Good: Traceback[\s\S]*AssertionError") as caught:
        process.ask(ForwardRequest(np.zeros((1, 8, 8, 3), np.float32), repeats=1))
    assert caught.value.kind == "error"
    assert process.ask(FactsRequest())["backend"] == "numpy"


def test_one_that_dies_is_reported_with_its_status(process):
    process.ask(FactsRequest())
    os.kill(process.process.pid, signal.SIGSEGV)
    with pytest.raises(WorkerError, match="fakes:Good: the worker died with status -11") as caught:
        process.ask(FactsRequest())
    assert caught.value.kind == "crashed"


def test_one_that_hangs_is_ended(process):
    process.ask(FactsRequest())
    os.kill(process.process.pid, signal.SIGSTOP)
    process.send(FactsRequest())
    with pytest.raises(WorkerError, match=r"fakes:Good: no answer after 0\.2 s") as caught:
        process.receive(timeout=0.2)
    assert caught.value.kind == "hung"
    assert process.process.wait(10) == -9


def test_no_subject_of_that_name():
    with WorkerProcess("nobody") as process:
        for _ in range(2):
            with pytest.raises(WorkerError, match=r'^no subject "nobody"; expected ') as caught:
                process.ask(FactsRequest())
            assert caught.value.kind == "unusable"
