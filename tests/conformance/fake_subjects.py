"""Subjects of NumPy, each right or failing in a way of its own: tests copy this file as `fakes.py`.

Their workers start no framework. Each start of a worker is a line of `starts`, in the present
folder.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from nfspec.conformance.subjects import NotOffered
from nfspec.reference import operations as ops
from nfspec.reference import training


class Good:
    framework = "numpy"

    def __init__(self, mode):
        with Path("starts").open("a") as file:
            file.write(f"{type(self).__name__} {os.getpid()}\n")

    def _before(self, method):
        """Do nothing; subclasses fail here."""

    def _after(self, method, y):
        return y

    def _function(self, method, function):
        def call(*arrays):
            self._before(method)
            y = function(*(np.asarray(a, np.float64) for a in arrays))
            return self._after(method, np.asarray(y, np.float32))

        return call

    def pool(self, op):
        return self._function("pool", lambda x: ops.pool(op, x))

    def activation(self, op):
        return self._function("activation", lambda x: ops.activation(op, x))

    def agc(self, clip):
        return self._function("agc", lambda g, p: training.clip(g, p, clip.rule)[0])


class Off(Good):
    def _after(self, method, y):
        return 1.001 * y


class Off2(Off):
    """Wrong in the same way."""


class Third(Good):
    """Killed at the third case of each of its lives."""

    count = 0

    def _before(self, method):
        self.count += 1
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class Always(Good):
    def _before(self, method):
        print("before the end", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Stillborn(Good):
    def __init__(self, mode):
        super().__init__(mode)
        os._exit(3)


class Hangs(Good):
    def _before(self, method):
        if method == "activation":
            time.sleep(3600.0)


class Slow(Good):
    """Takes a second to start, and another one for its first answer."""

    first = True

    def __init__(self, mode):
        time.sleep(1.0)
        super().__init__(mode)

    def _before(self, method):
        time.sleep(1.0 if self.first else 0.1)
        self.first = False


class NotANumber(Good):
    def _after(self, method, y):
        y = np.array(y)
        y.flat[-1] = np.nan
        return y


class Raises(Good):
    def _before(self, method):
        if method == "activation":
            raise ValueError("no such thing")


class Torn(Off):
    """Raises for one activation, and is off for the others."""

    def activation(self, op):
        if op.kind == "selu":
            raise ValueError(op.kind)
        return super().activation(op)


class Patchy(Good):
    """Raises for two activations."""

    def activation(self, op):
        if op.kind in ("elu", "selu"):
            raise ValueError(op.kind)
        return super().activation(op)


class Flat(Good):
    """Clips vectors alone."""

    def agc(self, clip):
        if len(clip.shape) > 1:
            raise NotOffered("kernels are not clipped")
        return super().agc(clip)


class Misspelt(Good):
    """Its method is not one that the kit asks for, and is never called."""

    def wsconv(self, op):
        raise AssertionError("called")


class Wide(Good):
    """Answers in float64."""

    def _function(self, method, function):
        return lambda *arrays: function(*(np.asarray(a, np.float64) for a in arrays))


class SaysNaN(Good):
    def _before(self, method):
        raise ValueError("cannot convert float NaN to integer, nor Infinity")


class Shy(Good):
    agc = None


class Narrow(Good):
    """Has no counterpart of one kind of what is asked for."""

    def activation(self, op):
        if op.kind == "selu":
            raise NotOffered("no selu")
        return super().activation(op)


class NoFramework:
    framework = "mxnet"
