"""The command line in a process of its own that stays, so that PyTorch is imported once.

Keras runs on one framework in a process, and the tests of the command line run on none.
"""

import json
import os
import re
import select
import subprocess
import sys
from types import SimpleNamespace

SECONDS = 60
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {
    "OMP_NUM_THREADS": "1"  # threads of torch's that wait for each other on busy cores are slow
}
# What runs before a command to do something in the middle of a training's step.
AT_STEP = """
from nfspec.backends.training.devices import Devices
train, calls = Devices.train, []
def failing(self, trainer, x, y):
    calls.append(1)
    if len(calls) == {step}:
        {action}
    return train(self, trainer, x, y)
patch.setattr(Devices, "train", failing)
"""
INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


class Served:
    """Calls of the command line, one after another, as if each were the first of its process."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def __call__(self, *arguments, before=""):
        """Run `nfspec ARGUMENTS`.

        Args:
            before: Python to run before it, with a MonkeyPatch called `patch`, which is undone.
        """
        request = {"arguments": [str(a) for a in arguments], "before": before}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        if not ready:
            self.process.kill()
            raise TimeoutError(f"no answer in {SECONDS} s: nfspec {' '.join(map(str, arguments))}")
        return SimpleNamespace(**json.loads(self.process.stdout.readline()))

    def close(self):
        self.process.communicate()


def assert_refused(result, message):
    """A message, exit status 2, no traceback."""
    assert result.unexpected == ""
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert re.search(message, result.stderr), result.stderr


def _serve():
    import traceback

    import keras
    import pytest
    from typer.testing import CliRunner

    from nfspec.cli import app
    from nfspec.training import session

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        keras.utils.clear_session(free_memory=False)  # or the second optimizer is called sgd_1
        with pytest.MonkeyPatch.context() as patch:
            # To draw takes longer than a short training; test_plots.py and `finished` do it.
            patch.setattr(session, "plot", lambda runs, path: path.touch())
            exec(request["before"], {"patch": patch})
            result = CliRunner().invoke(app, request["arguments"])
        problem = result.exception
        unexpected = problem is not None and not isinstance(problem, SystemExit)
        answer = {
            "exit_code": result.exit_code,
            "stdout": result.stdout,
            "stderr": result.stderr,
            "unexpected": "".join(traceback.format_exception(problem)) if unexpected else "",
        }
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "torch"
    _serve()
