"""Progress of a training: in a terminal, in a file, and for TensorBoard."""

import errno
import re
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len

import nfspec
from nfspec.training import watching as module
from nfspec.training.session import quietly
from nfspec.training.watching import Bar, Lines, Quiet, WithTensorBoard, watching

STEP = {
    "step": 1234,
    "epoch": 3.5,
    "loss": 6.90776,
    "accuracy": 0.126,
    "rate": 0.000123456,
    "clip_fraction": 0.5,
    "clip_fraction_of": {"stem": 0.75, "stages.0": 0.25},
    "images_per_second": 1234.56,
}
HELD = {
    "step": 1234,
    "epoch": 12.34,
    "top1": 0.5,
    "top5": 1.0,
    "held_out_loss": 1.23456,
    "held_out_images": 360,
}
NUMBERS = "loss 6.908  acc 0.13  lr 0.00012  clip 0.50  1235 img/s"
SHORT = "loss 6.908 acc 13% lr 0.00012 clip 50% 1235/s"
EVALUATED = "epoch 12.3: held-out top-1 50.00%, top-5 100.00%, loss 1.235"


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when a test says so."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


# lines


def test_lines_say_how_a_step_and_an_evaluation_went(capsys, clock):
    lines = Lines(112_602)
    lines.step(STEP)
    lines.evaluation(HELD)
    lines.message("a: cannot be read [x]; left out")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"step 1,234 of 112,602: {NUMBERS}",
        EVALUATED,
        "a: cannot be read [x]; left out",
    ]


def test_a_line_for_a_step_comes_every_half_minute_and_at_once(capsys, clock):
    lines = Lines(100)
    for n in range(10):
        lines.step({**STEP, "step": n})
        clock.now += 10.0
    steps = re.findall(r"step (\d+) of", capsys.readouterr().err)
    assert steps == ["0", "4", "8"]  # after more than 30 seconds


def test_evaluations_and_messages_do_not_wait(capsys, clock):
    lines = Lines(100)
    for _ in range(3):
        lines.evaluation(HELD)
        lines.message("x")
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_without_clipping_no_fraction_is_shown(capsys, clock):
    Lines(9).step({key: value for key, value in STEP.items() if not key.startswith("clip")})
    assert capsys.readouterr().err == (
        "step 1,234 of 9: loss 6.908  acc 0.13  lr 0.00012  1235 img/s\n"
    )


def test_the_other_processes_say_nothing(capsys):
    quiet = Quiet()
    quiet.step(STEP)
    quiet.evaluation(HELD)
    quiet.message("x")
    assert capsys.readouterr() == ("", "")


# a bar


def shown(text):
    """The lines that a terminal was sent, without its control sequences."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text).replace("\r", "\n")
    return [line.rstrip() for line in text.split("\n") if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns, whatever the tests run in."""
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


@pytest.fixture
def barred(terminal, capsys):
    """The last line that a bar shows on a terminal of 80 columns."""

    def last_line(steps, *entries):
        with watching(steps) as bar:
            for entry in entries:
                bar.step(entry)
        lines = shown(capsys.readouterr().err)
        assert all(cell_len(line) <= 80 for line in lines)
        return lines[-1]

    return last_line


def test_before_the_first_step_it_says_what_it_waits_for(barred):
    line = barred(330)
    assert "compiling, loading" in line
    assert "0/330" in line


@pytest.mark.parametrize("steps", [330, 9_999, 112_602])
def test_a_bar_fits_in_80_columns_with_all_numbers(barred, steps):
    """The step counts range from nfnet-nano on digits to NFNet-F0 on ImageNet."""
    line = barred(steps, STEP, {**STEP, "step": steps - 1})
    assert SHORT in line
    assert f"{steps - 1}/{steps}" in line


def test_a_bar_without_clipping_has_room_for_long_trainings(barred):
    entry = {key: value for key, value in STEP.items() if not key.startswith("clip")}
    line = barred(112_602, {**entry, "step": 100_000})
    assert "100000/112602" in line
    assert "loss 6.908 acc 13% lr 0.00012 1235/s" in line


def test_the_bar_of_a_terminal_shows_steps_evaluations_and_messages(terminal, capsys):
    with watching(330) as bar:
        assert isinstance(bar, Bar)
        bar.step({**STEP, "step": 7})
        bar.evaluation(HELD)
        bar.message("folder/[red]a[/red].png: cannot be read; left out")
        bar.step({**STEP, "step": 330})
    out, err = capsys.readouterr()
    lines = shown(err)
    assert out == ""
    assert all(cell_len(line) <= 80 for line in lines)
    assert EVALUATED in lines
    assert "folder/[red]a[/red].png: cannot be read; left out" in lines
    assert SHORT in lines[-1]
    assert "330/330" in lines[-1]


def test_a_bar_says_what_it_is_told_to_the_letter(terminal, capsys):
    """Names of files, which are neither markup nor a way to write pictures."""
    message = "set/a:dog:.png [b]: cannot be read; left out"
    with watching(330) as bar:
        bar.message(message)
    assert message in shown(capsys.readouterr().err)


NAMES = "set/\x1b[2J\x1b]0;title\x07a\nb\udcff.png: cannot be read; left out"
SPELT = r"set/\x1b[2J\x1b]0;title\x07a\nb\udcff.png: cannot be read; left out"


def test_names_do_not_reach_the_terminal_as_commands(terminal, capsys, monkeypatch):
    """Names of files and classes are anybody's."""
    with watching(330) as bar:
        bar.message(NAMES)
    assert SPELT in shown(capsys.readouterr().err)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with watching(330) as lines:
        lines.message(NAMES)
    assert capsys.readouterr().err == f"{SPELT}\n"


class Gone:
    """The end of a terminal or pipe that nobody reads any more."""

    encoding = "utf-8"

    def __init__(self, terminal):
        self.isatty = lambda: terminal

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")

    flush = fileno = lambda self: self.write("")


@pytest.mark.parametrize("kind", [True, False])
def test_a_terminal_that_is_gone_does_not_end_a_training(terminal, monkeypatch, kind):
    if not kind:
        monkeypatch.delenv("FORCE_COLOR")
    with watching(330) as watcher:
        assert type(watcher) is (Bar if kind else Lines)
        monkeypatch.setattr(sys, "stderr", Gone(kind))
        watcher.step(STEP)
        watcher.evaluation(HELD)
        watcher.message("x")


# which


def test_what_is_no_terminal_gets_lines(monkeypatch, capsys):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with watching(330) as watcher:
        assert type(watcher) is Lines
        assert watcher.steps == 330
    assert capsys.readouterr() == ("", "")


def test_a_quiet_watcher_prints_nothing(terminal, capsys):
    with quietly(330) as watcher:
        assert type(watcher) is Quiet
        watcher.step(STEP)
        watcher.evaluation({})
        watcher.message("text")
    assert capsys.readouterr() == ("", "")


# TensorBoard

SCALARS = {
    ("train/epoch", 1234): 3.5,
    ("train/loss", 1234): 6.90776,
    ("train/accuracy", 1234): 0.126,
    ("train/rate", 1234): 0.000123456,
    ("train/clip_fraction", 1234): 0.5,
    ("train/images_per_second", 1234): 1234.56,
    ("clip_fraction_of/stem", 1234): 0.75,
    ("clip_fraction_of/stages.0", 1234): 0.25,
    ("held_out/epoch", 1234): 12.34,
    ("held_out/top1", 1234): 0.5,
    ("held_out/top5", 1234): 1.0,
    ("held_out/held_out_loss", 1234): 1.23456,
    ("held_out/held_out_images", 1234): 360.0,
}


class Kept:
    """A watcher that keeps its entries and messages."""

    def __init__(self):
        self.kept = []

    def step(self, entry):
        self.kept.append(("step", entry))

    def evaluation(self, entry):
        self.kept.append(("evaluation", entry))

    def message(self, text):
        self.kept.append(("message", text))


@pytest.fixture
def written(tmp_path):
    """A folder with a step and an evaluation, and the entries and messages of the other watcher."""
    pytest.importorskip("tensorboardX")
    other = Kept()
    watcher = WithTensorBoard(other, tmp_path / "tensorboard")
    watcher.step(STEP)
    watcher.evaluation(HELD)
    watcher.message("hello")
    watcher.writer.close()
    return tmp_path / "tensorboard", other.kept


def records(path):
    """The records of an event file: each with its length, and checksums of both."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def intact(data, masked):
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) == masked

    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert intact(data[:8], data[8:12])
        assert intact(body, data[12 + length : 16 + length])
        yield Event.FromString(body)
        data = data[16 + length :]


def as_float32(values):
    return {key: np.float32(value) for key, value in values.items()}


def test_tensorboards_files_hold_every_number(written):
    (file,) = written[0].glob("events.out.tfevents.*")
    scalars = {}
    for event in records(file):
        for value in event.summary.value:
            assert (value.tag, event.step) not in scalars
            scalars[value.tag, event.step] = value.simple_value
    assert as_float32(scalars) == as_float32(SCALARS)


def test_tensorboards_own_reader_reads_them(written):
    name = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(name).EventAccumulator(str(written[0]))
    reader.Reload()
    scalars = {
        (tag, scalar.step): scalar.value
        for tag in reader.Tags()["scalars"]
        for scalar in reader.Scalars(tag)
    }
    assert as_float32(scalars) == as_float32(SCALARS)


def test_the_other_watcher_is_told_the_same(written):
    assert written[1] == [("step", STEP), ("evaluation", HELD), ("message", "hello")]


def test_without_tensorboardx_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(nfspec.InputError) as error:
        WithTensorBoard(Quiet(), tmp_path)
    assert str(error.value) == (
        "TensorBoard files: tensorboardX is not installed; run: pip install tensorboardX"
    )
