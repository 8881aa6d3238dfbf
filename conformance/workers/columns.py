"""One column of a run: a subject on a device in a mode, and the worker that answers for it."""

from __future__ import annotations

from typing import Any

from nfspec.compilation import BACKENDS, missing
from nfspec.conformance.cases.case import Arrays, Case, digest
from nfspec.conformance.cases.results import Column
from nfspec.conformance.properties.base import Outputs
from nfspec.conformance.workers.pool import Worker, WorkerError
from nfspec.errors import InputError

STRIKES = 3  # crashes or hangs in a row after which a subject is not asked any more


class Runner:
    """Starts its worker when it is first needed, and anew after a crash. Close it when done.

    Args:
        subject, device, mode: As of `pool.Worker`.
        timeout: Seconds to wait for a reply.
        fault: Name of a fault that the worker injects; empty for none.
    """

    def __init__(self, subject: str, device: str, mode: str, timeout: float, fault: str = ""):
        self.subject, self.device, self.mode = subject, device, mode
        self.timeout = timeout
        self.fault = fault
        self.facts: dict[str, Any] = {}
        self.problem = ""  # why it is not asked any more
        self.kind = ""  # of that problem: missing, crashed or hung
        self._strikes = 0
        self._worker: Worker | None = None

    @property
    def column(self) -> Column:
        framework = self.facts.get("backend", self.subject if self.subject in BACKENDS else "")
        facts, problem = dict(self.facts), self.problem
        return Column(self.subject, framework, self.device, self.mode, facts, problem)

    def start(self) -> None:
        """Start the worker and ask it who it is, without waiting for the answer."""
        if self.subject in BACKENDS and (message := missing(self.subject)) is not None:
            self._give_up(WorkerError(f"{self.subject}: {message}", "missing"))
            return
        self._worker = Worker(self.subject, self.device, self.mode)
        self._worker.send("facts")

    def meet(self) -> None:
        """Wait for that answer.

        Raises:
            InputError: There is no such subject.
        """
        if self._worker is None:
            return
        try:
            self.facts = self._worker.receive(self.timeout)
        except WorkerError as error:
            if error.kind == "unusable":
                raise InputError(str(error)) from None
            self._give_up(error)
            return
        found = str(self.facts["device"]).lower()
        absent = {"gpu": "cpu" in found, "tpu": "tpu" not in found}
        if absent.get(self.device):
            message = f"{self.subject}: sees no {self.device.upper()}, but {found}"
            self._give_up(WorkerError(message, "missing"))

    def send(self, case: Case, arrays: list[Arrays] | None) -> None:
        """Ask for a case without waiting. `arrays`: where the worker cannot make them itself.

        Raises:
            WorkerError: The worker is gone, or has been given up.
        """
        if self.problem:
            raise WorkerError(self.problem, self.kind)
        if self._worker is None:
            self._worker = Worker(self.subject, self.device, self.mode)
        try:
            self._worker.send("case", case=case.fields(), fault=self.fault, arrays=arrays)
        except WorkerError as error:
            raise self._struck(error) from None

    def receive(self, case: Case, calls: list[Arrays]) -> Outputs:
        """The outputs of the case that was sent, made from the arrays that it should be made from.

        Raises:
            WorkerError: It failed, in whichever way.
        """
        assert self._worker is not None
        try:
            reply = self._worker.receive(self.timeout)
        except WorkerError as error:
            raise self._struck(error) from None
        self._strikes = 0
        for what, found, wanted in (
            ("a reply to another case", reply["case"], case.id),
            ("a reply made from other arrays", reply["inputs"], digest(calls)),
            ("a reply of another process", reply["pid"], self._worker.process.pid),
        ):
            if found != wanted:
                raise WorkerError(f"{self.subject}: {what}: expected {wanted}; found {found}")
        return reply["outputs"]

    def _struck(self, error: WorkerError) -> WorkerError:
        if error.kind in ("crashed", "hung"):
            self._strikes += 1
            self.close()
            if self._strikes >= STRIKES:
                self._give_up(error)
        return error

    def _give_up(self, error: WorkerError) -> None:
        self.problem, self.kind = str(error), error.kind
        self.close()

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.__exit__()
            self._worker = None
