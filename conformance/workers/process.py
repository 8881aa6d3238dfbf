"""The process of a worker as its parent sees it: ask it, and notice when it crashes or hangs."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from nfspec.conformance.cases.results import COMPILER
from nfspec.conformance.workers.pipes import PipeProcess, ProcessDiedError
from nfspec.conformance.workers.requests import Failure, FailureKind, Request
from nfspec.errors import InputError, NfspecError

TIMEOUT = 1_800.0  # seconds; the largest networks take minutes to build and compile

COMPILED_FOR = "NFSPEC_COMPILED_FOR"  # an environment variable: a target of `nfspec lower`

# Environment variables that hide the other devices from every framework. A framework takes a GPU or
# TPU where there is one.
DEVICES = {
    "": {},
    "cpu": {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"},
    "gpu": {"JAX_PLATFORMS": "cuda"},
    "tpu": {"JAX_PLATFORMS": "tpu", "CUDA_VISIBLE_DEVICES": "-1"},
    COMPILER: {
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # programs for a TPU cannot be read back
        COMPILED_FOR: "tpu-v5e:2x2",
    },
}


# Memory of a device is taken when it is needed, and not all of it at the start.
GROWING = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

INSIDE = "NFSPEC_WORKER"  # an environment variable that a worker's process has


class WorkerError(NfspecError):
    """A worker answered with an error, died, or did not answer in time.

    Attributes:
        kind: The sort of failure.
    """

    def __init__(self, message: str, kind: FailureKind = "error"):
        super().__init__(message)
        self.kind = kind


class WorkerProcess:
    """A process that runs one subject. A context manager: leaving it ends the process.

    Args:
        subject: A name that `nfspec.conformance.subjects` knows; the name of a framework is nfspec
            on it.
        device: cpu, gpu, tpu, or tpu-compiler for programs that are compiled for a TPU; empty for
            what the framework takes by itself.
        mode: Mode of the arithmetic.

    Raises:
        InputError: This process is itself a worker, which imports the subject.
    """

    def __init__(self, subject: str, device: str = "", mode: str = "f32"):
        if INSIDE in os.environ:
            raise InputError(
                "the file of a subject starts a run when it is imported; put that run under "
                '`if __name__ == "__main__":`'
            )
        self.subject = subject
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **GROWING,
            "NVIDIA_TF32_OVERRIDE": None,  # would overrule the switches of the mode
            INSIDE: "1",
            **DEVICES[device],
        }
        module = "nfspec.conformance.workers.server"
        self._pipe = PipeProcess(module, subject, mode, environment=environment)
        self.process = self._pipe.process
        with suppress(ProcessDiedError):  # the first answer says so
            self._pipe.send([str(Path(folder).absolute()) for folder in sys.path])

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()

    def send(self, request: Request) -> None:
        """Send a request without waiting. Receive its reply before sending the next one.

        Raises:
            WorkerError: The process has died.
        """
        try:
            self._pipe.send(request)
        except ProcessDiedError as death:
            raise self._crashed(death) from None

    def receive(self, timeout: float = TIMEOUT) -> Any:
        """Wait for the reply to the last request.

        Raises:
            WorkerError: With the process's traceback, its exit status and last output, or the time.
        """
        try:
            reply = self._pipe.receive(timeout)
        except TimeoutError as error:
            raise WorkerError(f"{self.subject}: {error}", "hung") from None
        except ProcessDiedError as death:
            raise self._crashed(death) from None
        if isinstance(reply, Failure):
            raise WorkerError(reply.message, reply.kind)
        return reply

    def ask(self, request: Request) -> Any:
        """Send a request and wait for its reply."""
        self.send(request)
        return self.receive()

    def _crashed(self, death: ProcessDiedError) -> WorkerError:
        message = f"{self.subject}: the worker died with status {death.status}\n{death.output}"
        return WorkerError(message.rstrip(), "crashed")
