"""A Python module in a process of its own, at the other end of a pipe."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

LAST_WORDS = 2_000  # bytes of the process's output that are kept


class ProcessDiedError(Exception):
    """The process has ended.

    Attributes:
        status: Exit status; below 0, the number of the signal that ended it.
        output: The last of what it printed to stderr.
    """

    def __init__(self, status: int, output: str):
        super().__init__(f"died with status {status}")
        self.status = status
        self.output = output


class PipeProcess:
    """A process that is sent objects and sends objects back. Close it when done.

    Args:
        module: The module that runs as the process. Its first argument is the descriptor of its end
            of the pipe.
        arguments: The other arguments.
        environment: Environment variables that differ from those of this process; None for one that
            is left out.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str | None]):
        ours, theirs = socket.socketpair()
        self._home = tempfile.TemporaryDirectory(prefix="nfspec-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        # The user's keras.json could change dtypes and layouts.
        variables = {**os.environ, "KERAS_HOME": self._home.name, **environment}
        self.process = subprocess.Popen(
            # -P: what lies in the present folder must not stand in for a framework.
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
            env={name: value for name, value in variables.items() if value is not None},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def send(self, message: Any) -> None:
        """Send an object without waiting. Receive the answer before sending the next one.

        Raises:
            ProcessDiedError: The process has ended.
        """
        try:
            self._pipe.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the answer to the last object.

        Args:
            timeout: Seconds to wait; without end if None.

        Raises:
            TimeoutError: No answer came in time. The process is killed.
            ProcessDiedError: The process has ended.
        """
        try:
            if not self._pipe.poll(timeout):
                self.process.kill()
                raise TimeoutError(f"no answer after {timeout:g} s")
            return self._pipe.recv()
        except TimeoutError:
            raise
        except (EOFError, OSError):
            raise self._died() from None

    def _died(self) -> ProcessDiedError:
        status = self.process.wait()
        self._log.seek(0)
        tail = self._log.read()[-LAST_WORDS:].decode(errors="replace").strip()
        return ProcessDiedError(status, tail)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self.process.kill()
        self.process.wait()
        self._log.close()
        self._home.cleanup()
