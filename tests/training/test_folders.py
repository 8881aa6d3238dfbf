"""The folder of a training: what is not its own is left alone, and one process writes there."""

import json
import os
import re

import pytest

import nfspec
from nfspec.files import replacing
from nfspec.outputs import LOCK
from nfspec.training.folders import claimed, clear, read_facts

FACTS = {
    "nfspec": "0.1.0",
    "keras": "3.15.1",
    "torch": "2.13.0",
    "variant": "tiny",
    "data": "/photos",
    "backend": "torch",
    "seed": 0,
    "held_out": 0.2,
    "classes": ["blue", "green"],
}
MINE = ("weights.safetensors", "best.safetensors", "checkpoints/step-00000001.safetensors")
MINE += (".notes.tmp", "log.jsonl", "notes.txt", "training.png", "spec.toml")


def folder_of(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"my {name}")
    return path


def training_in(path):
    path.mkdir()
    (path / "run.json").write_text(json.dumps(FACTS))
    return path


def snapshot(path):
    return {str(p.relative_to(path)): p.is_file() and p.read_bytes() for p in path.rglob("*")}


def refused(path, *, resume=False, force=False):
    """The message, after which everything is as it was."""
    before = snapshot(path.parent)
    with pytest.raises(nfspec.InputError) as error, claimed(path, resume, force):
        raise AssertionError("claimed")
    assert snapshot(path.parent) == before
    assert "\n" not in str(error.value)
    return str(error.value)


# Whose a folder is.


def test_a_new_folder_is_made_and_taken_away_if_nothing_was_written(tmp_path):
    with claimed(tmp_path / "a" / "run", False, False):
        assert (tmp_path / "a" / "run").is_dir()
    assert not (tmp_path / "a" / "run").exists()
    with claimed(tmp_path / "run", False, False):
        (tmp_path / "run" / "run.json").touch()
    assert snapshot(tmp_path / "run") == {"run.json": b""}


def test_an_empty_folder_is_used_and_stays(tmp_path):
    with claimed(tmp_path, False, False):
        pass
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("name", MINE)
def test_a_folder_with_files_of_the_users_is_refused(tmp_path, name):
    """Whatever they are called: a training is known by its run.json alone."""
    path = folder_of(tmp_path / "run", name)
    first = name.partition("/")[0]
    assert refused(path) == (
        f"{path}: holds files that no training wrote ({first}); give another --out, or --force to "
        "write there and replace files of the same names"
    )
    assert "no training there to resume" in refused(path, resume=True)


def test_many_files_are_one_line(tmp_path):
    folder_of(tmp_path / "run", *(f"{n}.txt" for n in range(1000)), "0\x1b[31m.txt")
    assert r"(0\x1b[31m.txt and 1000 more)" in refused(tmp_path / "run")


def test_what_a_killed_training_left_behind_is_no_hindrance(tmp_path):
    """It was killed before it had written anything down."""
    (tmp_path / LOCK).write_text("process 1 on elsewhere")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "spec.toml") as temporary:
        name = temporary.name
        1 / 0  # noqa: B018
    (tmp_path / name).touch()
    with claimed(tmp_path, False, False):
        pass
    assert snapshot(tmp_path) == {name: b""}


def test_a_folder_that_holds_a_training(tmp_path):
    path = training_in(tmp_path / "run")
    assert "holds a training; go on with it by --resume, start over by --force" in refused(path)
    assert "give one of them" in refused(path, resume=True, force=True)
    for resume, force in ((True, False), (False, True)):
        with claimed(path, resume, force):
            pass
    assert list(snapshot(path)) == ["run.json"]


def test_to_start_over_replaces_what_a_training_writes_and_nothing_else(tmp_path):
    others = ("notes.txt", ".notes.tmp", "checkpoints/mine.safetensors", "tensorboard/mine")
    folder_of(tmp_path, *MINE, *others, "run.json", "tensorboard/events.out.tfevents.1.a")
    with claimed(tmp_path, False, True):
        clear(tmp_path)
    files = {name for name, content in snapshot(tmp_path).items() if content is not False}
    assert files == set(others)


def test_links(tmp_path):
    """A folder may be a link to one; what is refused is refused through a link, too."""
    (tmp_path / "empty").mkdir()
    folder_of(tmp_path / "full", "notes.txt")
    for name in ("empty", "full", "nothing", "loop"):
        (tmp_path / f"to {name}").symlink_to("to loop" if name == "loop" else name)
    with claimed(tmp_path / "to empty", False, False):
        assert (tmp_path / "empty" / LOCK).exists()
    assert (tmp_path / "empty").is_dir()
    assert "holds files that no training wrote" in refused(tmp_path / "to full")
    for name in ("nothing", "loop"):
        assert re.search(
            r"cannot be written to: [^;]+; give another", refused(tmp_path / f"to {name}")
        )
    (tmp_path / "empty" / LOCK).symlink_to(tmp_path / "full" / "notes.txt")
    assert "cannot be written to" in refused(tmp_path / "empty")
    assert (tmp_path / "full" / "notes.txt").read_text() == "my notes.txt"


# One process at a time.


def test_a_folder_is_claimed_once(tmp_path):
    path = training_in(tmp_path / "run")
    message = (
        f"{path}: process {os.getpid()} on {os.uname().nodename} is at work there; wait for it, or"
    )
    with claimed(path, True, False):
        for resume in (True, False):
            assert refused(path, resume=resume, force=not resume).startswith(message)
    with claimed(path, True, False):
        pass


def test_whoever_waits_does_not_take_the_lock_of_a_file_that_is_gone(tmp_path, monkeypatch):
    """The one before deletes the file between the moment it is opened and the one it is locked."""
    opened, times, folder = os.open, [], tmp_path / "run"

    def late(path, *arguments):
        descriptor = opened(path, *arguments)
        if not times:
            (folder / LOCK).unlink()
        times.append(path)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", late)
        claim = claimed(folder, False, False)
        claim.__enter__()
    assert len(times) == 2
    assert "is at work there" in refused(folder)
    claim.__exit__(None, None, None)


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    import fcntl

    def none(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with claimed(tmp_path, False, False):
        pass
    assert capsys.readouterr().err == (
        f"{tmp_path}: its file system has no locks; see that no other command writes there\n"
    )


def test_a_disk_that_is_full_already(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert "cannot be written to: No space left" in refused(tmp_path / "run")
    with claimed(tmp_path / "run", False, False):
        pass


# What run.json says.


def test_the_facts_of_a_training(tmp_path):
    facts = read_facts(training_in(tmp_path / "run"))
    said = {k: v for k, v in FACTS.items() if k not in ("keras", "torch")}
    assert facts.model_dump() == {**said, "val": None}


def test_names_that_are_not_utf_8_are_names(tmp_path):
    path = training_in(tmp_path / "run")
    odd = os.fsdecode(b"cat\xff")
    (path / "run.json").write_text(json.dumps({**FACTS, "classes": [odd, "dog"], "data": odd}))
    assert read_facts(path).classes == [odd, "dog"]
    assert read_facts(path).data == odd


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": -5}, "held_out: .*greater than or equal to 0.01; found -5$"),
        ({"held_out": 1.0}, "held_out: .*less than or equal to 0.9; found 1.0$"),
        ({"held_out": float("nan")}, "held_out: .*finite number; found nan$"),
        ({"held_out": "0.2"}, "held_out: "),
        ({"held_out": 10**400}, "held_out: "),
        ({"seed": -1}, "seed: .*; found -1$"),
        ({"seed": 0.5}, "seed: "),
        ({"seed": True}, "seed: "),
        ({"classes": [1, 2]}, r"classes\[0\]: expected text; found 1$"),
        ({"classes": 5}, "classes: .*list; found 5$"),
        ({"classes": []}, "classes: "),
        ({"classes": ["a", "b", "a"]}, r'classes: one of them twice; found \["a", "b", "a"\]$'),
        ({"classes": ["a", ["b"]]}, r"classes\[1\]: expected text"),
        ({"data": 5}, "data: expected text; found 5$"),
        ({"data": ""}, "data: expected text"),
        ({"backend": "caffe"}, "backend: "),
        ({"backend": None}, "backend: missing$"),
        ({"nfspec": None}, "nfspec: missing$"),
    ],
    ids=str,
)
def test_facts_that_no_training_writes_are_refused(tmp_path, changes, message):
    path = training_in(tmp_path / "run")
    facts = {k: v for k, v in {**FACTS, **changes}.items() if v is not None}
    (path / "run.json").write_text(json.dumps(facts))
    for how in ({}, {"resume": True}):
        assert re.search(
            rf"/run\.json: not what nfspec train wrote: {message}", refused(path, **how)
        )
    with claimed(path, False, True):
        pass


@pytest.mark.parametrize("text", [b"", b"no JSON", b"[]", b"null", b"5", b"[" * 99_999, b"\xff{"])
def test_what_is_not_even_a_table(tmp_path, text):
    path = training_in(tmp_path / "run")
    (path / "run.json").write_bytes(text)
    assert "/run.json: not what nfspec train wrote: " in refused(path, resume=True)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_run_json_that_is_no_file(tmp_path, make):
    make(tmp_path / "run.json")
    with pytest.raises(nfspec.InputError, match="where a regular file was expected"):
        read_facts(tmp_path)
