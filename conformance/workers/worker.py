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
START = 300.0  # seconds at least that a process has to import the subject and to make it
FIRST = 60.0  # seconds at least for its first answer, for which a framework compiles


class Worker:
    """A subject on a device in a mode, which answers cases. Close it when done.

    Args:
        subject, device, mode: See `WorkerProcess`.
        timeout: Seconds to wait for a reply. A process that starts, and its first reply, have
            `START` and `FIRST` seconds if that is more.
        fault: Name of a fault that the process injects; empty for none.

    Attributes:
        facts: Versions, device and switches of the process; empty until it has answered.
        programs: Number of programs that the last answer took, each compiled for the device on
            which none runs; 0 on other devices.
        given_up: The error for which the subject is not asked any more; None while it is.
    """

    def __init__(self, subject: str, device: str, mode: str, timeout: float, fault: str = ""):
        self.subject, self.device, self.mode = subject, device, mode
        self.timeout = timeout
        self.fault = fault
        self.facts: dict[str, Any] = {}
        self.programs = 0
        self.given_up: WorkerError | None = None
        self._strikes = 0
        self._process: WorkerProcess | None = None
        self._lacking: dict[str, str] = {}  # methods, each with a sentence that says so
        self._answered = False  # whether the process has answered a case

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
        self._begin().send(FactsRequest())

    def _begin(self) -> WorkerProcess:
        self._process, self._answered = WorkerProcess(self.subject, self.device, self.mode), False
        return self._process

    def wait(self) -> None:
        """Wait for the facts of a process that was started.

        Raises:
            InputError: There is no such subject.
        """
        if self._process is None:
            return
        try:
            self.facts = self._ready(self._process)
        except WorkerError as error:
            if error.kind == "unusable":
                raise InputError(str(error)) from None
            self._give_up(error)
            return
        self._lacking = self.facts.pop("lacking")
        seen = str(self.facts["device"]).lower()
        absent = {"gpu": "cpu" in seen, "tpu": "tpu" not in seen}
        if absent.get(self.device):
            message = f"{self.subject}: sees no {self.device.upper()}, but {seen}"
            self._give_up(WorkerError(message, "missing"))

    def _begun(self) -> WorkerProcess:
        """A process started anew, once it is ready."""
        process = self._begin()
        process.send(FactsRequest())
        self._ready(process)
        return process

    def _ready(self, process: WorkerProcess) -> dict[str, Any]:
        """The facts of a process that was asked for them, once it has started."""
        seconds = max(self.timeout, START)
        try:
            return dict(process.receive(seconds))
        except WorkerError as error:
            if error.kind != "hung":
                raise
            message = (
                f"{self.subject}: not ready after {seconds:g} s, in which its module is imported "
                "and the subject is made; a larger timeout waits longer"
            )
            raise WorkerError(message, "hung") from None

    def require(self, method: str) -> None:
        """Require a method of the subject, before anything is computed for it.

        Raises:
            WorkerError: The subject does not have the method.
        """
        if method in self._lacking:
            raise WorkerError(f"{self.subject}: {self._lacking[method]}", "no method")

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
        try:
            process = self._process or self._begun()
            process.send(CaseRequest(case, self.fault, arrays))
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
            seconds = self.timeout if self._answered else max(self.timeout, FIRST)
            reply = self._process.receive(seconds)
        except WorkerError as error:
            raise self._struck(error) from None
        self._strikes, self._answered = 0, True
        for what, got, expected in (
            ("a reply to another case", reply["case"], case.id),
            ("a reply made from other arrays", reply["inputs"], digest(calls)),
            ("a reply of another process", reply["pid"], self._process.process.pid),
        ):
            if got != expected:
                message = f"{self.subject}: {what}: expected {expected}; found {got}"
                raise WorkerError(message, "refused")
        self.programs = reply["programs"]
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
