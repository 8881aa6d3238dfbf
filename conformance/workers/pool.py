"""The parent's side: start a worker, ask it things, and notice when it crashes or hangs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from nfspec.errors import NfspecError

TIMEOUT = 1_800.0  # seconds; the largest networks take minutes to build and compile

# What keeps a device from every framework's sight; a GPU or TPU is taken where there is one.
DEVICES = {
    "": {},
    "cpu": {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"},
    "gpu": {"JAX_PLATFORMS": "cuda"},
    "tpu": {"JAX_PLATFORMS": "tpu", "CUDA_VISIBLE_DEVICES": "-1"},
}


class WorkerError(NfspecError):
    """A worker answered with an error, died, or did not answer in time.

    Attributes:
        kind: `error`, `not offered`, `missing` (no such framework, device or mode), `unusable` (no
            such subject), `crashed`, or `hung`.
    """

    def __init__(self, message: str, kind: str = "error"):
        super().__init__(message)
        self.kind = kind


class Worker:
    """A process that runs one subject. A context manager: leaving it ends the process.

    Args:
        subject: As `nfspec.conformance.subjects` finds it; the name of a framework is nfspec on it.
        device: cpu, gpu or tpu; empty for what the framework takes by itself.
        mode: Mode of the arithmetic.
    """

    def __init__(self, subject: str, device: str = "", mode: str = "f32"):
        self.subject = subject
        ours, theirs = socket.socketpair()
        self._home = tempfile.TemporaryDirectory(prefix="nfspec-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the worker is)
        environment = {
            **os.environ,
            "KERAS_HOME": self._home.name,  # the user's keras.json could change dtypes and layouts
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            **DEVICES[device],
        }
        environment.pop("NVIDIA_TF32_OVERRIDE", None)  # would overrule the switches of the mode
        module = "nfspec.conformance.workers.worker"
        # -P: what lies in the present folder must not stand in for a framework.
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), subject, mode]
        self.process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._pipe.close()
        self.process.kill()
        self.process.wait()
        self._log.close()
        self._home.cleanup()

    def send(self, op: str, **arguments: Any) -> None:
        """Send a request without waiting. The reply must be received before the next one."""
        try:
            self._pipe.send({"op": op, **arguments})
        except OSError:
            raise self._died() from None

    def receive(self, timeout: float = TIMEOUT) -> Any:
        """Wait for the reply to the last request.

        Raises:
            WorkerError: With the worker's traceback, its exit status and last output, or the time.
        """
        try:
            if not self._pipe.poll(timeout):
                self.process.kill()
                raise WorkerError(f"{self.subject}: no answer after {timeout:g} s", "hung")
            reply = self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if "error" in reply:
            message = reply["error"].rstrip()
            if reply["kind"] != "unusable" and not message.startswith(f"{self.subject}: "):
                message = f"{self.subject}: {message}"
            raise WorkerError(message, reply["kind"])
        return reply["result"]

    def ask(self, op: str, **arguments: Any) -> Any:
        """Send a request and wait for its reply."""
        self.send(op, **arguments)
        return self.receive()

    def _died(self) -> WorkerError:
        status = self.process.wait()
        self._log.seek(0)
        tail = self._log.read()[-2_000:].decode(errors="replace").strip()
        message = f"{self.subject}: the worker died with status {status}\n{tail}"
        return WorkerError(message.rstrip(), "crashed")
