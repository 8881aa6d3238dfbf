"""The log of a training: what was written is read, whatever happened to the last line."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from nfspec.training.logs import LONGEST, append, cut, read

RATES = {"accuracy": 0.5, "rate": 0.0, "images_per_second": 10.5}
ENTRIES = [
    {"step": 1, "epoch": 0.5, "loss": 2.25, **RATES}
    | {"clip_fraction": 0.5, "clip_fraction_of": {"stem": 0.5}},
    {"step": 2, "epoch": 1.0, "loss": 2.0, **RATES},
    {"step": 2, "epoch": 1, "top1": 0.125, "top5": 1.0, "held_out_loss": 3.5, "held_out_images": 8},
    {"step": 3, "epoch": 1.5, "loss": 1e-30, **RATES},
]
FOURTH = {"step": 4, "epoch": 2.0, "loss": 0.1 + 0.2, **RATES}


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    for entry in ENTRIES:
        append(path, entry)
    return path


def test_what_is_appended_is_read_to_the_bit(log):
    assert read(log) == ENTRIES
    append(log, {**FOURTH, "note": "é\n\u2028 x"})
    assert read(log) == [*ENTRIES, {**FOURTH, "note": "é\n\u2028 x"}]


def test_each_entry_is_a_line_of_json(log):
    lines = log.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == ENTRIES


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert read(tmp_path / "log.jsonl") == []
    (tmp_path / "log.jsonl").touch()
    assert read(tmp_path / "log.jsonl") == []


def test_a_last_line_that_was_cut_anywhere_is_left_out(log):
    whole = log.read_bytes()
    before = len(whole) - len(whole.splitlines(keepends=True)[-1])
    for end in range(before, len(whole) + 1):
        log.write_bytes(whole[:end])
        expected = 4 if end >= len(whole) - 1 else 3  # but for the end of the line it is whole
        assert read(log) == ENTRIES[:expected], whole[before:end]


@pytest.mark.parametrize("tail", [b"\0" * 512, b"{", b'{"step": 4, "lo', b"\xff\xfe\x80"])
def test_a_tail_that_was_never_written_is_left_out(log, tail):
    """Machines that lose power leave zeros, or whatever was on the disk."""
    with log.open("ab") as file:
        file.write(tail)
    assert read(log) == ENTRIES
    assert cut(log, 3) == ENTRIES
    assert read(log) == ENTRIES


def broken(**changes):
    """A line that is one entry but for some values; None: not there."""
    entry = {**ENTRIES[0], **changes}
    return json.dumps({k: v for k, v in entry.items() if v is not None}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b"null",
        b"[]",
        b'"step"',
        b"{}",
        b"\xff\xfe\x80",
        b"\0" * 40,
        b'{"step": 2, "lo',
        b"[" * 100_000,
        b'{"step": ' + b"9" * 5_000 + b"}",
        broken(epoch=None),
        broken(step=None),
        broken(step=1.5),
        broken(step=-1),
        broken(step=True),
        broken(loss="2.25"),
        broken(loss=float("nan")),
        broken(accuracy=float("inf")),
        broken(rate=None),
        broken(images_per_second=10**400),
        broken(top1=0.5, top5=0.5, held_out_loss=0.5, held_out_images=8),
        broken(clip_fraction_of=None),
        broken(clip_fraction_of=[0.5]),
        broken(clip_fraction_of={"stem": "0.5"}),
        broken(loss=None),
        broken(step=10**400),
        json.dumps({**ENTRIES[2], "held_out_images": 10**400}).encode(),
        json.dumps({**ENTRIES[2], "held_out_images": 0}).encode(),
        json.dumps({**ENTRIES[2], "top1": 1.125}).encode(),
        b'{"step": 1, "epoch": 1e999, "top1": 0, "top5": 0, "held_out_loss": 0}',
    ],
    ids=lambda line: line[:60].decode(errors="replace"),
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_line_that_no_training_writes_is_left_out_with_a_word(log, line, place):
    """And nothing else is: what follows on it is still a log."""
    lines = log.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:place], line + b"\n", *lines[place:]])
    log.write_bytes(damaged)
    said = []
    assert read(log, said.append) == ENTRIES
    assert said == [f"{log}: line {place + 1}: not what a training writes; left out"]
    assert log.read_bytes() == damaged
    assert cut(log, 9, said.append) == ENTRIES
    assert said[1:] == said[:1]
    assert log.read_bytes() == b"".join(lines)


def test_many_such_lines_are_one_message(log):
    log.write_bytes(b"5\nnull\n" + log.read_bytes() + b"\xff\n{")
    said = []
    assert read(log, said.append) == ENTRIES
    assert said == [f"{log}: line 1 and 2 more: not what a training writes; left out"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="where a regular file was expected"):
        read(tmp_path / "log.jsonl")


def test_what_comes_after_a_step_is_cut_off(log):
    assert cut(log, 2) == read(log) == ENTRIES[:3]
    append(log, FOURTH)
    assert read(log) == [*ENTRIES[:3], FOURTH]


def test_cutting_at_the_end_leaves_the_bytes_and_at_zero_nothing(log):
    before = log.read_bytes()
    cut(log, 3)
    assert log.read_bytes() == before
    assert cut(log, 0) == []
    assert log.read_bytes() == b""


def test_after_a_cut_entries_are_appended_on_lines_of_their_own(log):
    """Though the last line had no end."""
    log.write_bytes(log.read_bytes()[:-1])
    cut(log, 3)
    append(log, FOURTH)
    assert read(log) == [*ENTRIES, FOURTH]


def test_cutting_a_log_that_is_not_there_makes_an_empty_one(tmp_path):
    assert cut(tmp_path / "log.jsonl", 5) == []
    assert (tmp_path / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_a_log_is_cut_whole_or_not_at_all(log, monkeypatch, method):
    def full(*arguments, **how):
        raise OSError(28, "No space left on device")

    before = log.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, method, full)
        with pytest.raises(OSError, match=r"cannot be written: No space"):
            cut(log, 1)
    assert log.read_bytes() == before
    assert list(log.parent.iterdir()) == [log]


def test_a_line_longer_than_any_entry_takes_no_memory(log):
    """The lines after it are read, and a last line without an end is left out."""
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(first + b"\n" + bytes(3 * LONGEST) + b"\n" + rest + bytes(5 * LONGEST))
    said = []
    assert read(log, said.append) == ENTRIES
    assert said == [f"{log}: line 2: not what a training writes; left out"]
    assert cut(log, 9) == read(log) == ENTRIES
    size = log.stat().st_size
    os.truncate(log, size + 2**27)  # of zeros, as power that is lost may leave
    tracemalloc.start()
    assert read(log) == ENTRIES
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
