"""The folder of `nfspec train`: whose it is, who writes there, and going on with what is there."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

import nfspec

from folders import archive
from served import AT_STEP, assert_refused
from tiny import FILES, STEPS, assert_same_bits, checkpoints, log_of, pictures, snapshot


def test_a_folder_that_cannot_be_one(train, place, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_refused(train("--out", out), r"cannot be written to: .*; give another --out$")
    assert snapshot(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(train, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    result = train("--out", tmp_path / "run")
    assert_refused(result, r"cannot be written to: Permission denied; give another --out$")


def test_a_file_system_that_cannot_be_written_to(train, tmp_path):
    before = "import errno, os\ndef no(*a, **k): raise OSError(errno.EROFS, 'Read-only')\n"
    before += "patch.setattr(os, 'ftruncate', no)"
    result = train("--out", tmp_path / "run", before=before)
    assert_refused(result, r"cannot be written to: Read-only; give another --out$")


def test_a_folder_that_holds_a_training_is_left_as_it_is(train, finished):
    before = snapshot(finished[0])
    result = train("--out", finished[0], "--seed", 3)
    assert_refused(result, "holds a training; go on with it by --resume, start over by")
    assert snapshot(finished[0]) == before


def test_a_folder_of_the_users_is_left_as_it_is_unless_forced(train, tmp_path):
    """Whatever its files are called; and then those of a training's names alone are replaced."""
    mine = ("weights.safetensors", "best.safetensors", "checkpoints/step-00000001.safetensors")
    kept = ("notes.txt", ".notes.tmp", "checkpoints/.notes.tmp")
    for name in (*mine, *kept):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    before = snapshot(tmp_path)
    result = train("--out", tmp_path / "run", "--stop-at", 1)
    assert_refused(
        result, r"/run: holds files that no training wrote \(\.notes\.tmp and 4 more\); give"
    )
    assert snapshot(tmp_path) == before
    result = train("--out", tmp_path / "run", "--stop-at", 1, "--force")
    assert result.exit_code == 0, result.stderr
    result = train("--out", tmp_path / "run", "--resume", "--stop-at", 2)
    assert result.exit_code == 0, result.stderr
    assert checkpoints(tmp_path / "run") == [1, 2]
    after = snapshot(tmp_path / "run")
    assert {name: after[name] for name in kept} == dict.fromkeys(kept, b"mine")
    assert b"mine" not in {after[name] for name in mine}


def test_to_start_over_is_to_start(train, stopped):
    """Nothing of the training that was there is gone on with, or left."""
    result = train("--out", stopped, "--force", "--seed", 1, "--stop-at", 1)
    assert result.exit_code == 0, result.stderr
    assert checkpoints(stopped) == [1]
    assert [entry["step"] for entry in log_of(stopped)] == [1, 1]
    assert json.loads((stopped / "run.json").read_text())["seed"] == 1


def test_what_is_refused_does_not_start_over(train, stopped):
    before = snapshot(stopped)
    result = train("--out", stopped, "--force", "--freeze", "steam.*")
    assert_refused(result, "no parameter is called")
    assert snapshot(stopped) == before


def test_two_trainings_in_one_folder(train, stopped):
    """The second one is told who the first is, and may go on when that one has ended."""
    code = "import sys, time\nfrom pathlib import Path\n"
    code += "from nfspec.training.folders import claimed\n"
    code += "with claimed(Path(sys.argv[1]), True, False):\n    print('held', flush=True)\n"
    code += "    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, stopped], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        before = snapshot(stopped)
        result = train("--out", stopped, "--resume")
        assert_refused(result, rf"/run: process {other.pid} on \S+ is at work there; wait for")
        assert snapshot(stopped) == before
        other.kill()
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in stopped.iterdir()} == FILES


def test_a_folder_that_is_deleted_while_it_trains(train, tmp_path):
    action = f"import shutil; shutil.rmtree({str(tmp_path / 'run')!r})"
    result = train("--out", tmp_path / "run", before=AT_STEP.format(step=2, action=action))
    assert_refused(result, r"/run/log\.jsonl: No such file or directory$")
    assert not (tmp_path / "run").exists()


def test_checkpoints_may_be_a_link_to_a_larger_disk(train, finished, stopped, tmp_path):
    (stopped / "checkpoints").rename(tmp_path / "larger")
    (tmp_path / "larger" / "mine.safetensors").write_text("mine")
    (stopped / "checkpoints").symlink_to(tmp_path / "larger")
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert_same_bits(stopped, finished[0], STEPS)
    assert (tmp_path / "larger" / "mine.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [
        ("--lr", 0.1),
        ("--seed", 1),
        ("--held-out", 0.4),
        ("--freeze", "stem.*"),
        ("--epochs", 5),
        ("--class-weights", "balanced"),
    ],
    ids=lambda options: options[0],
)
def test_resuming_with_other_settings_is_refused_and_changes_nothing(train, stopped, options):
    """`nfspec evaluate` reads what was trained from spec.toml, and what was held out from run.json:
    they must stay those of the training that is there."""
    before = snapshot(stopped)
    result = train("--out", stopped, "--resume", *options)
    assert_refused(result, r"step-00000005\.safetensors: a checkpoint of another training than")
    assert snapshot(stopped) == before


def test_resuming_a_list_with_other_labels_is_refused(train, place, tmp_path):
    rows = [(path, path.parent.name) for path in sorted((place / "data").rglob("*.png"))]
    said = ["path,label", *(f"{path},{label}" for path, label in rows)]
    images = tmp_path / "list.csv"
    images.write_text("\n".join(said))
    options = ("--out", tmp_path / "run", "--stop-at", 2)
    assert train(*options, data=images).exit_code == 0
    (first, other), *_ = [(a, b) for a in rows for b in rows if a[1] != b[1]]
    images.write_text("\n".join(said).replace(f"{first[0]},{first[1]}", f"{first[0]},{other[1]}"))
    result = train("--out", tmp_path / "run", "--resume", data=images)
    assert_refused(result, "a checkpoint of another training than")


def test_what_is_not_as_before_is_named(train, stopped):
    result = train("--out", stopped, "--resume", "--epochs", 5)
    assert "Not as before: recipe.epochs was 4, and is 5. To train on under other" in result.stderr
    assert f"--init {stopped / 'weights.safetensors'} and another --out" in result.stderr


def test_what_starts_from_the_start_again_is_written_down_as_it_is(train, stopped):
    """If all checkpoints are damaged, the training starts again with the new options."""
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    options = ("--lr", 0.1, "--held-out", 0.4, "--stop-at", 1)
    result = train("--out", stopped, "--resume", *options)
    assert result.exit_code == 0, result.stderr
    assert "going on after step 0" in result.stderr
    assert nfspec.load(stopped / "spec.toml").recipe.learning_rate == 0.1
    assert json.loads((stopped / "run.json").read_text())["held_out"] == 0.4


def test_images_may_be_named_in_another_way_when_it_goes_on(train, stopped, place):
    """From another folder, the same ones have another path."""
    before = f"patch.chdir({str(place)!r})"
    result = train("--out", stopped, "--resume", data="data", before=before)
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr


def test_a_training_goes_on_with_its_images_in_a_tar_file(train, finished, stopped, tmp_path):
    """They are the same images in the same order, in another way; here processes read them."""
    members = []
    for name, images in pictures().items():
        for number, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            members.append((f"{name}/{number}.png", file.getvalue()))
            members.append((f"{name}/{number}.cls", name.encode()))
    images = archive(tmp_path / "images.tar", members)
    result = train("--out", stopped, "--resume", "--workers", 5, data=images)
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    assert_same_bits(stopped, finished[0], STEPS)


def test_resuming_what_is_finished_reports_it_again(train, finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    result = train("--out", folder, "--resume", "--json")
    assert (result.exit_code, result.unexpected) == (0, "")
    report = json.loads(result.stdout)
    expected = json.loads(finished[1].stdout)
    assert (report["final"], report["best"]) == (expected["final"], expected["best"])
    assert_same_bits(folder, finished[0], STEPS)
