"""Subjects that compute in float64 NumPy, or fail in some way: tests copy this file as `fakes.py`.

It stands in for Keras and for the kit's module of PyTorch, so that a worker starts in a moment.
Each start of a worker is a line of `starts`, in the present folder.
"""

import os
import signal
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from nfspec.reference import operations as ops
from nfspec.reference import training


def stand_in(name, **attributes):
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(attributes)
    sys.modules[name] = module


def compiled(function):
    def call(*arrays):
        return np.asarray(function(*(np.asarray(a, np.float64) for a in arrays)), np.float32)

    return call


stand_in("keras", backend=SimpleNamespace(backend=lambda: "torch"))
stand_in(
    "nfspec.conformance.workers.frameworks.torch",
    set_mode=lambda mode: None,
    switches=lambda: {"exact": "True"},
    device=lambda: "cpu",
    compiled=compiled,
)


class Good:
    framework = "torch"

    def __init__(self, mode):
        with Path("starts").open("a") as file:
            file.write(f"{type(self).__name__} {os.getpid()}\n")

    def before(self, method):
        """What goes wrong, if anything does."""

    def after(self, method, y):
        return y

    def _function(self, method, function):
        def call(*arrays):
            self.before(method)
            return self.after(method, function(*arrays))

        return call

    def pool(self, op):
        return self._function("pool", lambda x: ops.pool(op, x))

    def activation(self, op):
        return self._function("activation", lambda x: ops.activation(op, x))

    def agc(self, clip):
        return self._function("agc", lambda g, p: training.clip(g, p, clip.rule)[0])


class Off(Good):
    def after(self, method, y):
        return 1.001 * y


class Third(Good):
    """Killed at the third case of each of its lives."""

    count = 0

    def before(self, method):
        self.count += 1
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class Always(Good):
    def before(self, method):
        print("before the end", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Stillborn(Good):
    def __init__(self, mode):
        super().__init__(mode)
        os._exit(3)


class Hangs(Good):
    def before(self, method):
        if method == "activation":
            time.sleep(3600.0)


class NotANumber(Good):
    def after(self, method, y):
        y = np.array(y)
        y.flat[-1] = np.nan
        return y


class Raises(Good):
    def before(self, method):
        if method == "activation":
            raise ValueError("no such thing")


class SaysNaN(Good):
    def before(self, method):
        raise ValueError("cannot convert float NaN to integer, nor Infinity")


class Shy(Good):
    agc = None


class Narrow(Good):
    """Has no counterpart of one kind of what is asked for."""

    def activation(self, op):
        from nfspec.conformance.subjects import NotOffered

        if op.kind == "selu":
            raise NotOffered("no selu")
        return super().activation(op)


class NoFramework:
    framework = "numpy"
