"""The worker of a column: it starts its process when first needed, and again after a crash."""

from __future__ import annotations

from typing import Any

from nfspec.compilation import BACKENDS, missing
from nfspec.conformance.cases.case import Arrays, Case, digest
from nfspec.conformance.cases.results import Column
from nfspec.conformance.properties.base import Outputs
from nfspec.conformance.workers.process import WorkerError, WorkerProcess
from nfspec.conformance.workers.requests import CaseRequest, FactsRequest
from nfspec.errors import InputError

STRIKES = 3  # crashes or hangs in a row after which a subject is given up


class Worker:
    """A subject on a device in a mode, which answers cases. Close it when done.

    Args:
        subject, device, mode: See `WorkerProcess`.
        timeout: Seconds to wait for a reply.
        fault: Name of a fault that the process injects; empty for none.

    Attributes:
        facts: Versions, device and switches of the process; empty until it has answered.
        given_up: The error for which the subject is not asked any more; None while it is.
    """

    def __init__(self, subject: str, device: str, mode: str, timeout: float, fault: str = ""):
        self.subject, self.device, self.mode = subject, device, mode
        self.timeout = timeout
        self.fault = fault
        self.facts: dict[str, Any] = {}
        self.given_up: WorkerError | None = None
        self._strikes = 0
        self._process: WorkerProcess | None = None

    @property
    def column(self) -> Column:
        framework = self.facts.get("backend", self.subject if self.subject in BACKENDS else "")
        problem = "" if self.given_up is None else str(self.given_up)
        return Column(self.subject, framework, self.device, self.mode, dict(self.facts), problem)

    def start(self) -> None:
        """Start the process and ask for its facts, without waiting for them."""
        if self.subject in BACKENDS and (message := missing(self.subject)) is not None:
            self._give_up(WorkerError(f"{self.subject}: {message}", "missing"))
            return
        self._process = WorkerProcess(self.subject, self.device, self.mode)
        self._process.send(FactsRequest())

    def wait(self) -> None:
        """Wait for the facts of a process that was started.

        Raises:
            InputError: There is no such subject.
        """
        if self._process is None:
            return
        try:
            self.facts = self._process.receive(self.timeout)
        except WorkerError as error:
            if error.kind == "unusable":
                raise InputError(str(error)) from None
            self._give_up(error)
            return
        seen = str(self.facts["device"]).lower()
        absent = {"gpu": "cpu" in seen, "tpu": "tpu" not in seen}
        if absent.get(self.device):
            message = f"{self.subject}: sees no {self.device.upper()}, but {seen}"
            self._give_up(WorkerError(message, "missing"))

    def send(self, case: Case, arrays: list[Arrays] | None) -> None:
        """Ask for a case without waiting.

        Args:
            case: The case.
            arrays: The case's arrays, where the process cannot make them itself.

        Raises:
            WorkerError: The process has died, or the subject was given up.
        """
        if self.given_up is not None:
            raise WorkerError(str(self.given_up), self.given_up.kind)
        if self._process is None:
            self._process = WorkerProcess(self.subject, self.device, self.mode)
        try:
            self._process.send(CaseRequest(case, self.fault, arrays))
        except WorkerError as error:
            raise self._struck(error) from None

    def receive(self, case: Case, calls: list[Arrays]) -> Outputs:
        """The outputs of the case that was sent.

        Args:
            case: The case.
            calls: The arrays from which the outputs must have been computed.

        Raises:
            WorkerError: There are no outputs, or they are those of another case, of other arrays or
                of another process.
        """
        assert self._process is not None
        try:
            reply = self._process.receive(self.timeout)
        except WorkerError as error:
            raise self._struck(error) from None
        self._strikes = 0
        for what, got, expected in (
            ("a reply to another case", reply["case"], case.id),
            ("a reply made from other arrays", reply["inputs"], digest(calls)),
            ("a reply of another process", reply["pid"], self._process.process.pid),
        ):
            if got != expected:
                message = f"{self.subject}: {what}: expected {expected}; found {got}"
                raise WorkerError(message, "refused")
        return reply["outputs"]

    def _struck(self, error: WorkerError) -> WorkerError:
        if error.kind in ("crashed", "hung"):
            self._strikes += 1
            self.close()
            if self._strikes >= STRIKES:
                self._give_up(error)
        return error

    def _give_up(self, error: WorkerError) -> None:
        self.given_up = error
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None
