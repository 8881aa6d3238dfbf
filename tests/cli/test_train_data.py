"""Images and packages of `nfspec train`: what is missing, unreadable or oddly named."""

import json
import os
import shutil

import pytest
from PIL import Image, features

from served import assert_refused
from tiny import CLASSES, EACH, log_of, snapshot

HIDDEN = """
import importlib.util, sys
find = importlib.util.find_spec
hidden = {names!r}
patch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in hidden else find(n, *a))
for name in hidden:
    patch.setitem(sys.modules, name, None)
"""


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["jax"], ["--backend", "jax"], r"^jax: jax not installed; run: pip install jax$"),
        (["grain"], [], r"^grain, .* is not installed; run: pip install grain$"),
        (["grain", "matplotlib"], [], r"are not installed; run: pip install grain matplotlib$"),
        (["tensorboardX"], ["--tensorboard"], r"not installed; run: pip install tensorboardX$"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command(train, tmp_path, names, options, message):
    """And nothing is begun, so that the same command works once it is."""
    before = HIDDEN.format(names=names)
    assert_refused(train("--out", tmp_path / "run", *options, before=before), message)
    assert snapshot(tmp_path) == {}


def test_digits_without_scikit_learn(train, tmp_path):
    before = HIDDEN.format(names=["sklearn", "sklearn.datasets"])
    result = train("--out", tmp_path / "run", data="digits", before=before)
    assert_refused(result, r"^digits come with scikit-learn.* run: pip install scikit-learn$")


# Images.


def test_data_that_is_no_folder_of_class_folders(train, place, tmp_path):
    out = ("--out", tmp_path / "run")
    assert_refused(train(*out, data=tmp_path / "none"), r"/none: no such folder; expected one")
    assert_refused(train(*out, data=place / "tiny.toml"), r"tiny\.toml: not a folder; expected one")
    (tmp_path / "data" / ".hidden").mkdir(parents=True)
    (tmp_path / "data" / "0.png").write_bytes(b"")
    assert_refused(train(*out, data=tmp_path / "data"), r"/data: no class folders in it; expected")
    (tmp_path / "data" / "red").mkdir()
    (tmp_path / "data" / "red" / "notes.txt").write_text("no image")
    assert_refused(train(*out, data=tmp_path / "data"), r"/data: no images in red; put some there")


def test_a_class_of_one_image_leaves_none_to_train_on(train, place, tmp_path):
    data = shutil.copytree(place / "data", tmp_path / "data")
    for number in range(1, EACH):
        (data / "green" / f"{number}.png").unlink()
    result = train("--out", tmp_path / "run", data=data)
    assert_refused(result, r'^class "green": 1 image in all, and one is held out; add images')


def test_a_class_and_an_image_may_be_called_anything(train, place, tmp_path):
    """They are trained on, gone on with, evaluated and shown, without what a terminal acts on."""
    data, out = shutil.copytree(place / "data", tmp_path / "data"), tmp_path / "run"
    names = [os.fsdecode(b"red\xff"), "red\x1b[31m", "red\n"]
    for old, name in zip(CLASSES, names, strict=True):
        (data / old).rename(data / name)
        (data / name / "0.png").rename(data / name / f"{name}.png")
        (data / name / f"{name}.png").write_text("not an image")
    said = ""
    for how in (("--stop-at", 1), ("--stop-at", 3, "--resume")):
        result = train("--out", out, *how, data=data)
        assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
        said += result.stderr
    assert "\x1b" not in said
    assert json.loads((out / "run.json").read_text())["classes"] == sorted(names)
    for name in names:
        shown = name.encode("unicode_escape").decode()
        assert f"/{shown}/{shown}.png: cannot be read (" in said


def test_strangers_in_val_are_refused(train, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data" / "train")
    shutil.copytree(place / "data" / "red", tmp_path / "data" / "val" / "pink")
    result = train("--out", tmp_path / "run", data=tmp_path / "data")
    assert_refused(result, r"the network has no class pink; it has blue, green, red")


def test_images_that_cannot_be_read_are_named_once_and_left_out(train, place, tmp_path):
    """Training and held-out images are damaged in each way that Pillow reports differently."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    bad = []
    for number in range(0, EACH, 2):
        path = data / "red" / f"{number}.png"
        whole = path.read_bytes()
        path.write_bytes([b"", b"text", whole[:100], whole[:-300], whole[::-1]][number // 2])
        bad.append(path)
    # Three steps are an epoch, in which every image is read.
    result = train("--out", tmp_path / "run", "--stop-at", 3, data=data)
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    for path in bad:
        assert result.stderr.count(f"{path}: cannot be read (") == 1
    assert result.stderr.count("left out") == len(bad)
    assert len([entry for entry in log_of(tmp_path / "run") if "loss" in entry]) == 3


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_that_cannot_be_read_is_left_out_too(train, place, tmp_path):
    """Pillow says so by a RuntimeError, unlike those of other formats."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    path = data / "red" / "broken.avif"
    Image.open(data / "red" / "0.png").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"av01", b"av00"))  # the name of its codec
    with path.open("rb") as file, pytest.raises(RuntimeError):
        Image.open(file).convert("RGB")
    result = train("--out", tmp_path / "run", "--stop-at", 3, data=data)
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    assert result.stderr.count(f"{path}: cannot be read (") == 1


def emptied(place, target, keep=()):
    """A copy of the images, all of them text but those to keep."""
    data = shutil.copytree(place / "data", target)
    for path in data.glob("*/*.png"):
        if path not in keep:
            path.write_text("not an image")
    return data


def test_where_no_image_can_be_read_it_ends(train, place, tmp_path):
    data = emptied(place, tmp_path / "data")
    result = train("--out", tmp_path / "run", data=data)
    assert_refused(result, "none of the training images can be read")
    assert "no checkpoint was written yet" in result.stderr


def test_where_no_held_out_image_can_be_read_it_ends_in_a_message(train, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data" / "train")
    emptied(place, tmp_path / "data" / "val")
    result = train("--out", tmp_path / "run", data=tmp_path / "data")
    assert_refused(result, "none of the held-out images can be read")
