"""`nfspec plot`."""

import json
import os
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.training import logs

ENTRY = {"step": 1, "epoch": 0.5, "loss": 2.0, "accuracy": 0.25, "rate": 0.1}
ENTRY |= {"images_per_second": 10.0}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


def trained(folder, *entries):
    folder.mkdir(parents=True)
    for entry in entries or (ENTRY,):
        logs.append(folder / "log.jsonl", entry)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each call that would draw a picture; nothing is drawn."""
    calls = []
    module = sys.modules["nfspec.cli.plot"]  # not the command, which has its name
    monkeypatch.setattr(module, "draw", lambda runs, out: calls.append((runs, out)))
    return calls


def test_it_writes_a_picture_of_one_run(tmp_path):
    result = run(trained(tmp_path / "mine"), "--out", "new.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "wrote new.png"
    with Image.open("new.png") as image:
        assert image.format == "PNG"


EVALUATION = {"top5": 0.9, "held_out_loss": 1.25, "held_out_images": 100}


def test_the_table_has_the_numbers_of_each_training(tmp_path, drawn):
    """Twenty steps, of which the last two are the last tenth."""
    steps = [
        {**ENTRY, "step": n, "epoch": n / 10, "loss": 4.0 - n / 10, "images_per_second": 100.0 + n}
        for n in range(1, 21)
    ]
    clipped = [each | {"clip_fraction": 0.5, "clip_fraction_of": {"stem": 0.5}} for each in steps]
    first = {"step": 10, "epoch": 1.0, "top1": 0.75, **EVALUATION}
    second = {"step": 20, "epoch": 2.0, "top1": 0.5, **EVALUATION}
    trained(tmp_path / "a", *clipped[:10], first, *clipped[10:], second)
    trained(tmp_path / ("b" * 40), *steps[:5])
    result = run("a", "b" * 40)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == [
        "epochs",
        "loss",
        "clipped",
        "held",
        "out",
        "top-1",
        "best",
        "at",
        "images/s",
    ]
    assert lines[1] == ["a", "2", "2.050", "50.0%", "1.250", "50.0%", "75.0%", "1", "110.5"]
    assert lines[2:4] == [["b" * 22, "0.5", "3.500", "103"], ["b" * 18]]
    assert max(map(len, result.stdout.splitlines())) <= 80
    a, b = json.loads(run("a", "b" * 40, "--json").stdout)
    assert (a["name"], a["steps"], a["best_epoch"], a["held_out_loss"]) == ("a", 20, 1.0, 1.25)
    assert a["loss"] == pytest.approx(2.05) and b["top1"] is None and b["clip_fraction"] is None


def test_runs_are_called_by_their_folders(tmp_path, drawn, monkeypatch):
    trained(tmp_path / "runs/a")
    trained(tmp_path / "runs/b", ENTRY, {**ENTRY, "step": 2})
    assert run("runs/a/", tmp_path / "runs/b").exit_code == 0
    ((runs, out),) = drawn
    assert list(runs) == ["a", "b"]
    assert [len(entries) for entries in runs.values()] == [1, 2]
    assert str(out) == "training.png"
    monkeypatch.chdir(tmp_path / "runs/a")
    run(".")
    assert list(drawn[1][0]) == ["a"]


def test_runs_of_one_name_are_called_by_their_paths(tmp_path, drawn):
    for folder in ("one/a", "two/a", "b"):
        trained(tmp_path / folder)
    run("one/a", "two/a", "b")
    assert list(drawn[0][0]) == ["one/a", "two/a", "b"]


def test_a_half_written_last_line_is_left_out(tmp_path, drawn):
    trained(tmp_path / "a", ENTRY, {**ENTRY, "step": 2})
    with (tmp_path / "a/log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    run("a")
    assert len(drawn[0][0]["a"]) == 2


@pytest.mark.parametrize("name", ["empty", "missing", "log.jsonl"])
def test_a_folder_without_a_training_is_named(tmp_path, name):
    trained(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.jsonl").touch()
    result = run("a", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{name}: no training in it (no log.jsonl)\n"
    assert not (tmp_path / "training.png").exists()


def test_a_training_without_a_step_is_named(tmp_path):
    trained(tmp_path / "a")
    (tmp_path / "a/log.jsonl").write_text("")
    result = run("a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "a: its log has no step yet; train first\n"


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    result = run(trained(tmp_path / "a"), "--out", "missing/new.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "missing/new.png: cannot be written: No such file or directory\n"


def test_it_takes_a_run_at_least():
    assert run().exit_code == 2


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_log_that_is_no_file_is_named(tmp_path, make):
    (tmp_path / "a").mkdir()
    make(tmp_path / "a/log.jsonl")
    result = run("a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("a/log.jsonl: cannot be read: a ")


def test_a_picture_that_exists_is_left_as_it_is(tmp_path, drawn):
    trained(tmp_path / "a")
    (tmp_path / "mine.txt").write_text("mine")
    result = run("a", "--out", "mine.txt")
    assert (result.exit_code, result.stdout, drawn) == (2, "", [])
    assert result.stderr == ("mine.txt exists, and is left as it is; replace it with --force\n")
    assert run("a", "--out", "mine.txt", "--force").exit_code == 0
    assert len(drawn) == 1


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_is_no_file_is_never_replaced(tmp_path, drawn, force):
    """Renaming a file to /dev/null would take the place of it."""
    trained(tmp_path / "a")
    (tmp_path / "folder").mkdir()
    for out in ("folder", "/dev/null"):
        result = run("a", "--out", out, *force)
        assert (result.exit_code, drawn) == (2, [])
        assert result.stderr == f"{out} exists and is not a regular file; give another path\n"


@pytest.mark.parametrize("line", [b"5", b"null", b'{"step": 1, "loss": 2.0}', b"\xff\0"])
def test_lines_that_no_training_writes_are_left_out_with_a_word(tmp_path, drawn, line):
    trained(tmp_path / "a")
    log = tmp_path / "a/log.jsonl"
    log.write_bytes(line + b"\n" + log.read_bytes())
    result = run("a")
    assert result.exit_code == 0
    assert result.stderr == "a/log.jsonl: line 1: not what a training writes; left out\n"
    assert drawn[0][0] == {"a": [ENTRY]}


def test_a_log_of_nothing_but_such_lines_has_no_step(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log.jsonl").write_text("5\nnull\n")
    result = run("a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("a: its log has no step yet; train first\n")


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", os.fsdecode(b"a\xff"), "$a^{"])
def test_a_folder_may_be_called_anything(tmp_path, name):
    trained(tmp_path / name)
    result = run(name, "--out", "new.png")
    assert (result.exit_code, result.stderr) == (0, "")
    (tmp_path / name / "log.jsonl").unlink()
    result = run(name, "--out", "other.png")
    assert result.exit_code == 2
    assert result.stderr.rstrip("\n").isprintable()
