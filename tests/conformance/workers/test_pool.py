"""Workers: what comes back when a framework errs, dies or hangs."""

import os
import signal

import pytest

from nfspec.conformance.workers.pool import Worker, WorkerError


def test_a_worker_answers_and_outlives_an_error():
    with Worker("torch") as worker:
        with pytest.raises(WorkerError, match=r"torch: Traceback[\s\S]*KeyError: 'dance'"):
            worker.ask("dance")
        assert worker.ask("facts")["backend"] == "torch"
    assert worker.process.poll() is not None


def test_a_worker_that_dies_is_reported_with_its_status():
    with Worker("torch") as worker:
        worker.ask("facts")
        os.kill(worker.process.pid, signal.SIGSEGV)
        with pytest.raises(WorkerError, match="torch: the worker died with status -11"):
            worker.ask("facts")


def test_a_worker_that_hangs_is_ended():
    with Worker("torch") as worker:
        worker.ask("facts")
        os.kill(worker.process.pid, signal.SIGSTOP)
        worker.send("facts")
        with pytest.raises(WorkerError, match=r"torch: no answer after 0\.2 s"):
            worker.receive(timeout=0.2)
        assert worker.process.wait(10) == -9
