"""Workers of `fakes:NAME` within this process: to start a process is most of a small run."""

import os
import sys
import warnings
from types import SimpleNamespace

from nfspec.conformance.workers import server
from nfspec.conformance.workers import worker as worker_module
from nfspec.conformance.workers.process import WorkerError, WorkerProcess
from nfspec.conformance.workers.requests import Failure

ENDING = ("fakes:Always", "fakes:Stillborn", "fakes:Third")  # these end their process


class LocalProcess:
    """Answers as a `WorkerProcess` does."""

    def __init__(self, subject, device, mode):
        self.process = SimpleNamespace(pid=os.getpid())
        self._subject, self._server = subject, server._started(subject, mode)

    def send(self, request):
        self._request = request

    def receive(self, timeout):
        reply = self._server
        if not isinstance(reply, Failure):
            try:
                with warnings.catch_warnings(action="ignore"):  # an error in the tests alone
                    reply = self._server.answer(self._request)
            except Exception as error:
                reply = server._failure(self._subject, error)
        if isinstance(reply, Failure):
            raise WorkerError(reply.message, reply.kind)
        return reply

    def close(self):
        """Do nothing: the process is the tests'."""


def started(subject, device, mode):
    """A process of its own for a subject that ends it."""
    kind = WorkerProcess if subject in ENDING else LocalProcess
    return kind(subject, device, mode)


def use_this_process(monkeypatch, folder):
    """Let the workers of a test answer from here, with the `fakes` in a folder."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "fakes", raising=False)
    monkeypatch.setattr(worker_module, "WorkerProcess", started)
