"""Streams that are closed, full or left, and Ctrl-C: a line at most, and a status."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nfspec import streams


@pytest.fixture(autouse=True)
def signals_that_are_not_ignored():
    """In the background of a script SIGINT is, by what a test starts, too; SIGHUP under nohup."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


COMMAND = f"'{sys.executable}' -P -m nfspec"


def shell(line, **options):
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize(
    ("arguments", "status", "stderr"),
    [
        ("list >&-", 2, "stdout: Bad file descriptor\n"),
        ("check nfnet-f0 >/dev/full", 2, "stdout: No space left on device\n"),
        ("--help >/dev/full", 2, "stdout: No space left on device\n"),
        ("--version >&- 2>&-", 2, ""),
        ("check nfnet-f0 2>&-", 0, ""),
        ("check nowhere 2>&-", 2, ""),
        ("check nowhere 2>/dev/full", 2, ""),
        ("nosuchcommand 2>/dev/full", 2, ""),
        ("check nfnet-f0 <&- >&- 2>&-", 2, ""),
        ("list | head -1; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_streams_that_cannot_be_written_to(arguments, status, stderr):
    result = shell(f"{COMMAND} {arguments}")
    assert (result.returncode, result.stderr) == (status, stderr)


def test_a_file_does_not_get_what_is_printed(tmp_path):
    """It would have the number of a stream that is closed."""
    spec = tmp_path / "moth.toml"
    result = shell(f"{COMMAND} new moth --output '{spec}' >&- 2>&- <&-")
    assert result.returncode == 2
    assert "wrote" not in spec.read_text()
    assert shell(f"{COMMAND} check '{spec}'").returncode == 0


def interrupted(arguments, seconds):
    """Exit status and error stream of a command that gets SIGINT this long after it has begun.

    A program has no influence on what Python itself does before that.
    """
    code = (
        "import os, sys; from nfspec.__main__ import main, streams; streams.end_at_once(); "
        "os.write(2, b'.'); main()"
    )
    command = [sys.executable, "-P", "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = os.read(process.stderr.fileno(), 1)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    return process.returncode, first + stderr


def test_ctrl_c_at_any_time_is_a_word(tmp_path):
    train = ("train", "nfnet-nano", "digits", "--epochs", "4", "--out", str(tmp_path / "run"))
    wanted = [(("list",), n / 20) for n in range(9)]
    wanted += [(("check", "nfnet-f7", "nfnet-f6", "nfnet-f5"), n / 5) for n in range(4)]
    wanted += [(train, n / 5) for n in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: interrupted(*each), wanted))
    for how, each in zip(wanted, results, strict=True):
        # -2: Python has taken its handlers back, as it does at the very end of a process.
        assert each in ((130, b".interrupted\n"), (0, b"."), (-2, b".")), (how, each)
    assert (130, b".interrupted\n") in results[:9]
    assert {status for status, _ in results[-4:]} == {130}
    assert not list(tmp_path.rglob("run.json"))


def test_ctrl_c_in_a_destructor_is_not_lost():
    """Python cannot raise it there, and would print a traceback."""
    code = """
import os, signal, time
from nfspec import streams
streams.ready()
class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
try:
    held = Held()
    del held
    time.sleep(30)
except KeyboardInterrupt:
    print("raised")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "raised\n", "")


def test_other_errors_in_a_destructor_are_told():
    code = """
from nfspec import streams
streams.ready()
class Held:
    def __del__(self):
        raise ZeroDivisionError
Held()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20
    )
    assert "ZeroDivisionError" in result.stderr


def test_what_ignores_ctrl_c_goes_on_doing_so():
    """As a command in the background of a script does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        streams.end_at_once()
        with streams.Interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_temporary_folders_are_taken_away_by_whatever_ends_a_command(number, tmp_path):
    code = """
import sys, tempfile, time
from nfspec import streams
streams.end_at_once()
with streams.Interruptible(), tempfile.TemporaryDirectory(dir=sys.argv[1]):
    print(flush=True)
    time.sleep(30)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == (-2 if number == signal.SIGINT else 128 + number)
    assert not list(tmp_path.iterdir())
