"""The log of a training: what was written is read, whatever happened to the last line."""

import json
from pathlib import Path

import pytest

import nfspec
from nfspec.logs import append, cut, read

ENTRIES = [
    {"step": 1, "loss": 2.25, "clip_fraction_of": {"stem": 0.5}},
    {"step": 2, "loss": 2.0},
    {"step": 2, "top1": 0.125, "held_out_images": 8},
    {"step": 3, "loss": 1e-30},
]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    for entry in ENTRIES:
        append(path, entry)
    return path


def test_what_is_appended_is_read_to_the_bit(log):
    assert read(log) == ENTRIES
    append(log, {"step": 4, "loss": 0.1 + 0.2, "note": "é\n\u2028 x"})
    assert read(log) == [*ENTRIES, {"step": 4, "loss": 0.1 + 0.2, "note": "é\n\u2028 x"}]


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


def test_what_comes_after_a_line_that_was_cut_is_left_out_too(log):
    """It was written by somebody who did not cut the log, and does not follow on what is kept."""
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2] + lines[3])
    assert cut(log, 9) == read(log) == ENTRIES[:1]


def test_what_comes_after_a_step_is_cut_off(log):
    assert cut(log, 2) == read(log) == ENTRIES[:3]
    append(log, {"step": 3, "loss": 1.5})
    assert read(log) == [*ENTRIES[:3], {"step": 3, "loss": 1.5}]


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
    append(log, {"step": 4})
    assert read(log) == [*ENTRIES, {"step": 4}]


def test_cutting_a_log_that_is_not_there_makes_an_empty_one(tmp_path):
    assert cut(tmp_path / "log.jsonl", 5) == []
    assert (tmp_path / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("method", ["write_text", "replace"])
def test_a_log_is_cut_whole_or_not_at_all(log, monkeypatch, method):
    def full(*arguments, **how):
        raise OSError(28, "No space left on device")

    before = log.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, method, full)
        with pytest.raises(nfspec.WeightError, match=r"log\.jsonl: cannot be written: No space"):
            cut(log, 1)
    assert log.read_bytes() == before
    assert list(log.parent.iterdir()) == [log]
