"""The fuzzer finds a reader that does something that no reader may do."""

import gc
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from nfspec.errors import InputError

from fuzzing.drive import Driver, Progress
from fuzzing.target import Target

# Another test of the process may have imported JAX, which warns of every fork; the child uses none.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")


def hidden(path):
    (path.parent / "more.txt").write_text("x")


def changed(path):
    path.write_bytes(b"x")


def swallowed(path):
    try:
        os.system("true")
    except BaseException:
        raise InputError("no file of this kind") from None


def said(message):
    def reader(path):
        raise InputError(message)

    return reader


def warned(path):
    warnings.warn("\x1b[2J", UserWarning, stacklevel=1)


def filled(path):
    kept = [np.ones(2**20) for _ in range(20)]  # 160 MiB
    assert kept


def found_and_hidden(path):
    kept = []
    try:
        while True:
            kept.append(b"x" * 2**26)
    except MemoryError:
        kept.clear()
        raise InputError("no file of this kind") from None


def wait(path):
    pipe = os.pipe()
    os.read(pipe[0], 1)


# What a reader does with a file that begins with "bad", and how the finding begins.
BROKEN = {
    "a program": (lambda path: os.system("true"), "os.system"),
    "a program, hidden": (swallowed, "os.system"),
    "a process": (lambda path: subprocess.run(["true"]), "subprocess.Popen"),
    "code": (lambda path: exec(compile("1", "x.py", "exec")), "code was run"),
    "a module": (lambda path: __import__("stranger"), "read a file that is not its own"),
    "a socket": (lambda path: socket.socket(), "socket"),
    "a file": (hidden, "opened for writing"),
    "the file itself": (changed, "opened for writing"),
    "a file deleted": (lambda path: path.unlink(), "os.remove"),
    "another file": (
        lambda path: Path("/etc/hostname").read_bytes(),
        "read a file that is not its own",
    ),
    "an error of its own": (lambda path: {}["x"], "KeyError in tests/fuzzing/test_child.py"),
    "no memory": (lambda path: bytes(2**62), "MemoryError"),
    "memory": (filled, "memory: "),
    "memory, hidden": (found_and_hidden, "memory: "),
    "an end": (lambda path: os._exit(0), "process ended with 0"),
    "a crash": (lambda path: os.abort(), "process ended with -6"),
    "a loop": (lambda path: all(iter(int, 1)) or sum(iter(lambda: 1, 0)), "time"),
    "an escape": (said("\x1b[2J"), "a message with control characters"),
    "a flood": (said("x" * 5000), "a message that fills the terminal"),
    "a warning": (warned, "a warning: a message with control characters"),
}


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """The objects that all tests hold are not collected anew in each process."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def turn(tmp_path, monkeypatch):
    def run(read, data=b"bad", work=4_000_000, **more):
        def reader(path):
            if path.is_file() and path.read_bytes() == b"bad":
                read(path)
            if path.is_file() and path.read_bytes() == b"largest":
                assert sum(range(work))  # the time that this takes sets the limit

        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "stranger.py").write_text("")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "modules"), *sys.path])
        target = Target(
            "t", "x", reader, [b"good"], b"largest", {"it": data}, st.just(b"good"), **more
        )
        monkeypatch.setattr("fuzzing.limits.BACKSTOP", 2**28)
        progress = Progress()
        actual = Driver(tmp_path / "work", shrink=False).turn(target, progress, 3)
        return actual, progress

    return run


# One of each kind; the others take as long.
ALWAYS = {"a program, hidden", "a file", "another file", "memory", "a crash", "a loop", "an escape"}


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in BROKEN],
)
def test_a_broken_reader_is_found(turn, name):
    read, what = BROKEN[name]
    # The kernel takes its time to hand out memory, on a busy machine above all; a loop takes all
    # the time that there is, three times.
    work = 40_000_000 if "memory" in name else 400_000 if name == "a loop" else 4_000_000
    (finding,), progress = turn(read, work=work)
    assert finding.what.startswith(what)
    assert finding.data == b"bad"
    assert progress.findings == {finding.name: finding.what}
    assert progress.executions >= 1


def test_a_crash_while_the_stack_is_written_is_the_end_of_the_time():
    text = "Stack (most recent call first):\n  File Fatal Python error: Segmentation fault\n"
    assert Driver._death(-11, text) == "time"
    assert (
        Driver._death(-11, "Fatal Python error: Segmentation fault\n") == "process ended with -11"
    )


def test_a_reader_that_waits_is_found(turn, monkeypatch):
    monkeypatch.setattr("fuzzing.drive.WAIT", 0.3)
    (finding,), _ = turn(wait)
    assert finding.what.startswith("waits for ever")


@pytest.mark.parametrize("read", [lambda path: None, said("not a file of this kind")])
def test_a_reader_that_takes_or_refuses_is_not_found(turn, read):
    actual, progress = turn(read)
    assert actual == []
    assert progress.executions >= 2


def test_the_smallest_file_of_a_fault_is_kept(tmp_path):
    def read(path):
        if path.is_file() and len(path.read_bytes()) > 3:
            raise KeyError

    target = Target("t", "x", read, [b""], b"", {}, st.binary(max_size=100))
    progress = Progress()
    (finding,) = Driver(tmp_path, shrink=True).turn(target, progress, 200)
    assert len(finding.data) == 4
    assert Driver(tmp_path, shrink=True).turn(target, progress, 200) == []  # it is known
