"""`nfspec train`, from its arguments to the files it leaves, on PyTorch and a few small images.

Most calls go to one process that stays; those that are signalled before they look have their own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, features

import nfspec
from nfspec.cost.memory import USABLE, training_bytes
from nfspec.weights.store import read_all

from served import ENVIRONMENT, Served, assert_refused
from tiny import CLASSES, EACH, assert_same_bits, log_of, write_images, write_spec

STEPS = 12
FILES = {
    "spec.toml",
    "run.json",
    "log.jsonl",
    "training.png",
    "weights.safetensors",
    "best.safetensors",
    "checkpoints",
}
# A signal in the middle of a step, and failures of one: what runs before the command.
AT_STEP = """
from nfspec.backends.training.devices import Devices
train, calls = Devices.train, []
def failing(self, trainer, x, y):
    calls.append(1)
    if len(calls) == {step}:
        {action}
    return train(self, trainer, x, y)
patch.setattr(Devices, "train", failing)
"""
INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


@pytest.fixture(scope="module")
def nfspec_on_torch():
    served = Served()
    yield served
    served.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the spec and the images."""
    folder = tmp_path_factory.mktemp("place")
    write_spec(folder)
    write_images(folder / "data")
    return folder


@pytest.fixture
def train(nfspec_on_torch, place):
    """`nfspec train` of the tiny network; of other images if given."""

    def call(*arguments, data=None, spec=None, before=""):
        spec, data = spec or place / "tiny.toml", data or place / "data"
        return nfspec_on_torch("train", spec, data, *arguments, before=before)

    return call


def keras_home(folder, **settings):
    """A folder with the user's configuration of Keras."""
    (folder / "keras").mkdir()
    (folder / "keras" / "keras.json").write_text(json.dumps({"backend": "caffe", **settings}))
    return str(folder / "keras")


@pytest.fixture(scope="module")
def finished(place):
    """A whole training in a process of its own: what it printed, and its folder.

    The user's configuration of Keras says all kinds of things, none of which shows: the tests below
    compare with trainings that have none.
    """
    folder = place / "finished"
    command = [sys.executable, "-m", "nfspec", "train", place / "tiny.toml", place / "data"]
    command += ["--json", "--backend", "torch", "--out", folder]
    home = keras_home(place, floatx="float16", epsilon=0.1, image_data_format="channels_first")
    environment = {**ENVIRONMENT, "KERAS_HOME": home}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def stopped(train, tmp_path):
    """The folder of a training that was interrupted in its fifth step."""
    result = train("--out", tmp_path / "run", before=AT_STEP.format(step=5, action=INTERRUPT))
    assert result.exit_code == 130, result.stderr
    assert "stopping after this step, with a checkpoint; again: at once" in result.stderr
    assert result.stderr.endswith("stopped after step 5; go on with --resume\n")
    assert checkpoints(tmp_path / "run") == [3, 5]
    return tmp_path / "run"


def checkpoints(folder):
    found = (folder / "checkpoints").glob("step-*.safetensors")
    return sorted(int(path.stem.removeprefix("step-")) for path in found)


def snapshot(folder):
    """Every file below a folder, and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# A training from end to end.


def test_all_files_are_there_and_nothing_else(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoints(folder)[-2:] == [9, 12]


def test_the_spec_in_the_folder_is_the_one_that_was_trained(finished, place):
    spec = nfspec.load(finished[0] / "spec.toml")
    assert spec.model_dump() == nfspec.load(place / "tiny.toml").model_dump()
    weights = nfspec.weights.load(finished[0] / "weights.safetensors", nfspec.resolve(spec))
    assert weights["head.fc.kernel"].shape == (32, 3)


def test_the_spec_in_the_folder_has_what_was_asked_for(train, tmp_path):
    (tmp_path / "over.toml").write_text("[recipe]\nmomentum = 0.8\nbatch = 6\n")
    options = ["--recipe", tmp_path / "over.toml", "--batch", 4, "--lr", 0.5, "--clipping", 0.02]
    options += ["--epochs", 3, "--warmup", 2, "--size", 17, "--precision", "bfloat16"]
    result = train("--out", tmp_path / "run", "--stop-at", 1, *options)
    assert result.exit_code == 0, result.stderr
    spec = nfspec.load(tmp_path / "run" / "spec.toml")
    recipe = spec.recipe
    assert (recipe.momentum, recipe.batch, recipe.epochs, recipe.warmup_epochs) == (0.8, 4, 3, 2)
    assert (recipe.learning_rate, recipe.learning_rate_images) == (0.5, 0)
    assert (recipe.precision, recipe.images) == ("bfloat16", 24)
    assert (spec.input.train, spec.input.test, spec.agc.clipping) == (17, 17, 0.02)


def test_clipping_none_turns_it_off(train, tmp_path):
    result = train("--out", tmp_path / "run", "--stop-at", 1, "--clipping", "none")
    assert result.exit_code == 0, result.stderr
    assert not nfspec.load(tmp_path / "run" / "spec.toml").agc.enabled
    assert "clipping       none" in result.stderr
    assert "clip_fraction" not in log_of(tmp_path / "run")[0]


def test_the_facts_of_the_run(finished, place):
    facts = json.loads((finished[0] / "run.json").read_text())
    versions = {name: facts.pop(name) for name in ("nfspec", "keras", "torch")}
    assert versions["nfspec"] == nfspec.__version__
    assert facts == {
        "variant": "tiny",
        "data": str(place / "data"),
        "backend": "torch",
        "seed": 0,
        "held_out": 0.2,
        "classes": list(CLASSES),
    }


def test_json_is_the_last_and_the_best_evaluation_of_the_log(finished):
    folder, result = finished
    entries = log_of(folder)
    evaluations = [entry for entry in entries if "top1" in entry]
    assert [entry["step"] for entry in entries if "loss" in entry] == [*range(1, STEPS + 1)]
    assert [entry["step"] for entry in evaluations] == [3, 6, 9, 12]
    best = max(evaluations, key=lambda entry: entry["top1"])
    assert json.loads(result.stdout) == {
        "folder": str(folder),
        "steps": STEPS,
        "final": evaluations[-1],
        "best": best,
    }
    assert "Traceback" not in result.stderr
    assert f"{3 * EACH - 6} to train on, 6 held out, 3 classes" in result.stderr


def test_text_says_how_often_it_is_right_and_how_sure_that_is(train, finished, tmp_path):
    result = train("--out", tmp_path / "run")
    assert (result.exit_code, result.unexpected) == (0, "")
    lines = result.stdout.splitlines()
    last = [entry for entry in log_of(tmp_path / "run") if "top1" in entry][-1]
    assert lines[0].startswith(f"top-1  {last['top1']:7.2%}  (95 % interval ")
    assert lines[0].endswith(f"{round(6 * last['top1'])} of 6)")
    assert lines[1].endswith(f"{round(6 * last['top5'])} of 6)")
    assert lines[3].startswith(f"wrote  {tmp_path / 'run'}/weights.safetensors")
    assert_same_bits(tmp_path / "run", finished[0], STEPS)


def test_the_folder_is_called_after_spec_data_and_framework(train, tmp_path):
    result = train("--stop-at", 1, before=f"patch.chdir({str(tmp_path)!r})")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs" / "tiny-data-torch" / "weights.safetensors").is_file()


WRITER = """
import json, pathlib, tensorboardX
class Writer:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
    def add_scalar(self, *scalar):
        with (self.folder / "scalars").open("a") as file:
            file.write(json.dumps(scalar) + "\\n")
patch.setattr(tensorboardX, "SummaryWriter", Writer)
"""


def test_tensorboard_gets_what_the_log_gets(train, tmp_path):
    """Each number under a name of its own; and the package writes a file."""
    out = tmp_path / "run"
    result = train("--out", out, "--stop-at", 3, "--tensorboard", before=WRITER)
    assert result.exit_code == 0, result.stderr
    lines = (out / "tensorboard" / "scalars").read_text().splitlines()
    found = {(name, step): value for name, value, step in map(json.loads, lines)}
    assert len(found) == len(lines)
    expected = {}
    for entry in log_of(out):
        step, group = entry.pop("step"), "train" if "loss" in entry else "held_out"
        stages = entry.pop("clip_fraction_of", {})
        expected |= {(f"{group}/{name}", step): value for name, value in entry.items()}
        expected |= {(f"clip_fraction_of/{n}", step): value for n, value in stages.items()}
    speeds = {("train/images_per_second", step) for step in (1, 2, 3)}
    assert {key: value for key, value in found.items() if key not in speeds} == expected
    assert train("--out", tmp_path / "real", "--stop-at", 1, "--tensorboard").exit_code == 0
    assert len(list((tmp_path / "real" / "tensorboard").iterdir())) == 1


def test_another_seed_is_another_training(train, finished, tmp_path):
    result = train("--out", tmp_path / "run", "--seed", 1, "--stop-at", 1)
    assert result.exit_code == 0, result.stderr
    assert log_of(tmp_path / "run")[0]["loss"] != log_of(finished[0])[0]["loss"]


def test_a_folder_val_is_what_is_evaluated_on(train, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data" / "train")
    (tmp_path / "data" / "val" / "red").mkdir(parents=True)
    shutil.copy(place / "data" / "red" / "0.png", tmp_path / "data" / "val" / "red")
    result = train("--out", tmp_path / "run", "--stop-at", 1, data=tmp_path / "data")
    assert result.exit_code == 0, result.stderr
    assert "30 to train on, 1 held out, 3 classes" in result.stderr


# Arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clipping", "high"), r'^--clipping: expected a number, or "none"; found "high"$'),
        (("--clipping", "-1"), r"^--clipping: agc\.clipping: must be more than 0"),
        (("--lr", "0"), r"^--lr: recipe\.learning_rate: must be more than 0"),
        (("--lr", "nan"), r"^--lr: recipe\.learning_rate: must be finite"),
        (("--batch", "0"), r"^--batch: recipe\.batch: must be at least 1; found 0"),
        (("--epochs", "0"), r"^--epochs: recipe\.epochs: must be at least 1; found 0"),
        (("--size", "8"), r"--size: input\.train: must be at least 16; found 8"),
        (("--precision", "float16"), r'^--precision: .*did you mean "bfloat16"'),
        (("--accumulation", "3"), r"^batch: 8 images do not divide into 3 micro-batches$"),
        (("--devices", "3"), r"^--batch: 8 images do not divide by 3$"),
        (("--accumulation", "4", "--devices", "4"), r"^--batch: 2 images do not divide by 4$"),
        (("--warmup", "4"), r"^warmup_epochs: 4 of 4 epochs leave nothing of 12 steps"),
        (("--backend", "jaxx"), r'^no backend "jaxx"; .*did you mean "jax"\?$'),
        (("--init", "none.safetensors"), r"none\.safetensors: cannot be read: No such file"),
        (("--resume",), r"no training there to resume; start it without --resume$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_written(train, tmp_path, options, message):
    assert_refused(train("--out", tmp_path / "run", *options), message)
    assert snapshot(tmp_path) == {}


def test_a_batch_of_more_images_than_there_are_is_called_that(train, tmp_path):
    """And not a warm-up that is too long."""
    assert_refused(train("--out", tmp_path / "run", "--batch", 1000), r"^--batch: 1000 images")
    options = ("--out", tmp_path / "run", "--batch", 1000, "--warmup", 0)
    assert_refused(train(*options), r"^--batch: 1000 images")


def test_an_unknown_variant(train, tmp_path):
    out = ("--out", tmp_path / "run")
    assert_refused(train(*out, spec="nfnet-f00"), r'did you mean "nfnet-f0"\? \[SPEC-NAME\]$')


# Recipes.


BARE = """\
momentum = 0.8          # none of these is in a table
batch = 6
[head]
dropout = 0.1
"""


def test_a_network_without_a_recipe_is_trained_by_the_one_that_nfspec_has(train, tmp_path):
    """A file may change some of its values, whether they stand in [recipe] or in no table."""
    file = tmp_path / "mine.toml"
    file.write_text(BARE)
    short = ("--stop-at", 1, "--size", 32, "--recipe", file)
    result = train("--out", tmp_path / "run", *short, spec="timm/test_nfnet")
    assert result.exit_code == 0, result.stderr
    assert "test_nfnet has no [recipe]; nfspec/training/recipe.toml is taken\n" in result.stderr
    spec = nfspec.load(tmp_path / "run" / "spec.toml")
    recipe = spec.recipe
    assert (recipe.momentum, recipe.batch, recipe.images, spec.head.dropout) == (0.8, 6, 24, 0.1)
    published = nfspec.load("nf-resnet-50").recipe
    changed = {"momentum": 0.8, "batch": 6, "images": 24}
    assert recipe.model_dump() == published.model_dump() | changed
    text = (tmp_path / "run" / "spec.toml").read_text()
    assert f"# {file}:1\n" in text
    assert "# nfspec/training/recipe.toml:" in text


def test_fine_tuning_a_network_without_a_recipe(train, tmp_path):
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    nfspec.weights.save(tmp_path / "a.safetensors", plan, nfspec.init(plan))
    short = ("--stop-at", 1, "--size", 32, "--batch", 8, "--init", tmp_path / "a.safetensors")
    result = train("--out", tmp_path / "run", *short, spec="timm/test_nfnet")
    assert result.exit_code == 0, result.stderr
    assert "with a new classifier" in result.stderr
    recipe = nfspec.load(tmp_path / "run" / "spec.toml").recipe
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (20, 0.05, 0.0)


def test_a_network_with_a_recipe_keeps_it(train, finished):
    assert "recipe.toml" not in (finished[0] / "spec.toml").read_text()
    assert "recipe.toml" not in finished[1].stderr


@pytest.mark.parametrize("name", ["a\nb = 1\n.toml", os.fsdecode(b"a\xff.toml"), "\x1b[31m.toml"])
def test_a_recipes_file_may_be_called_anything(train, tmp_path, name):
    """spec.toml names it beside each value, in comments that a line feed must not end."""
    file = tmp_path / name
    file.write_text("[recipe]\nmomentum = 0.8\n")
    result = train("--out", tmp_path / "run", "--recipe", file, "--stop-at", 1)
    assert (result.exit_code, result.unexpected) == (0, "")
    assert nfspec.load(tmp_path / "run" / "spec.toml").recipe.momentum == 0.8
    assert "\x1b" not in (tmp_path / "run" / "spec.toml").read_text() + result.stderr
    file.write_text("[recipe]\nmomentum = 8\n")
    result = train("--out", tmp_path / "other", "--recipe", file)
    assert_refused(result, r"\.toml:2:1: recipe\.momentum: must be less than 1.0; found 8")
    assert result.stderr.isprintable() or result.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[recipe]\nbatch = 0\n", r":2:1: recipe\.batch: must be at least 1; found 0"),
        ("\nbatch = 0\n", r":2:1: recipe\.batch: must be at least 1; found 0"),
        ("batsh = 9\n", r':1:1: recipe\.batsh: unknown key; did you mean "batch"\?'),
        ("batch = 9\n[recipe]\nbatch = 8", r":1:1: batch: in \[recipe\] too; take one of the two"),
        ("recipe = 5\n", r":1:1: recipe: expected a table; found 5"),
        ("[recipe]\nmomentun = 0.5\n", r':2:1: recipe\.momentun: unknown key; .*"momentum"'),
        ("[recipe]\nbatch = \n", ":2:9: not TOML"),
        (None, ": cannot be read: No such file or directory"),
    ],
    ids=["value", "bare", "bare key", "twice", "no table", "key", "not TOML", "missing"],
)
def test_what_is_wrong_in_a_recipe_file_is_said_with_its_place(train, tmp_path, text, where):
    file = tmp_path / "over.toml"
    if text is not None:
        file.write_text(text)
    result = train("--out", tmp_path / "run", "--recipe", file)
    assert_refused(result, re.escape(str(file)) + where)


# What is not installed.


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


@pytest.mark.parametrize("name", [os.fsdecode(b"red\xff"), "red\x1b[31m", "red\n"])
def test_a_class_and_an_image_may_be_called_anything(train, place, tmp_path, name):
    """They are trained on, gone on with, evaluated and shown, without what a terminal acts on."""
    data, out = shutil.copytree(place / "data", tmp_path / "data"), tmp_path / "run"
    (data / "red").rename(data / name)
    (data / name / "0.png").rename(data / name / f"{name}.png")
    (data / name / f"{name}.png").write_text("not an image")
    for how in ((), ("--resume",)):
        result = train("--out", out, "--stop-at", 1 + len(how), *how, data=data)
        assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
        assert "\x1b" not in result.stderr
    assert json.loads((out / "run.json").read_text())["classes"] == ["blue", "green", name]
    shown = name.encode("unicode_escape").decode()
    assert f"/{shown}/{shown}.png: cannot be read (" in result.stderr


def test_strangers_in_val_are_refused(train, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data" / "train")
    shutil.copytree(place / "data" / "red", tmp_path / "data" / "val" / "pink")
    result = train("--out", tmp_path / "run", data=tmp_path / "data")
    assert_refused(result, r"no classes of the network: pink; it knows blue, green, red")


def test_images_that_cannot_be_read_are_named_once_and_left_out(train, place, tmp_path):
    """Of those to train on and those held out, whatever Pillow makes of them."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    bad = []
    for number in range(0, EACH, 2):
        path = data / "red" / f"{number}.png"
        whole = path.read_bytes()
        path.write_bytes([b"", b"text", whole[:100], whole[:-300], whole[::-1]][number // 2])
        bad.append(path)
    result = train("--out", tmp_path / "run", data=data)
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    for path in bad:
        assert result.stderr.count(f"{path}: cannot be read (") == 1
    assert result.stderr.count("left out") == len(bad)
    assert len([entry for entry in log_of(tmp_path / "run") if "loss" in entry]) == STEPS


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
    result = train("--out", tmp_path / "run", data=data)
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


# The folder.


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
    assert_refused(result, r"/run: holds what no training wrote \(\.notes\.tmp and 4 more\); give")
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
    [("--lr", 0.1), ("--seed", 1), ("--held-out", 0.4), ("--freeze", "stem.*"), ("--epochs", 5)],
    ids=lambda options: options[0],
)
def test_resuming_with_other_settings_is_refused_and_changes_nothing(train, stopped, options):
    """`nfspec evaluate` reads what was trained from spec.toml, and what was held out from run.json:
    they must stay those of the training that is there."""
    before = snapshot(stopped)
    result = train("--out", stopped, "--resume", *options)
    assert_refused(result, r"step-00000005\.safetensors: a checkpoint of another training than")
    assert snapshot(stopped) == before


def test_what_starts_from_the_start_again_is_written_down_as_it_is(train, stopped):
    """Where all checkpoints are damaged, nothing of the training that was there is gone on with."""
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


def test_resuming_what_is_finished_reports_it_again(train, finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    result = train("--out", folder, "--resume", "--json")
    assert (result.exit_code, result.unexpected) == (0, "")
    found = json.loads(result.stdout)
    expected = json.loads(finished[1].stdout)
    assert (found["final"], found["best"]) == (expected["final"], expected["best"])
    assert_same_bits(folder, finished[0], STEPS)


# Room.


def test_a_disk_without_room_for_checkpoints(train, tmp_path):
    """17,707 parameters, three copies of each in a checkpoint: see what the message says."""
    before = "import shutil, types\n"
    before += "patch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free={}))"
    result = train("--out", tmp_path / "run", before=before.format(50_000))
    assert_refused(result, r"/run: \S+ k?B are needed there for checkpoints .* 50\S* kB are free; ")
    assert snapshot(tmp_path) == {}
    result = train("--out", tmp_path / "run", "--stop-at", 1, before=before.format(10**8))
    assert result.exit_code == 0, result.stderr


LIMIT = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, most))
"""


@pytest.mark.parametrize(
    ("full", "newest"), [("a checkpoint", 5), ("the weights", 5), ("the log", 6)]
)
def test_a_disk_that_is_full_while_it_trains(train, finished, stopped, full, newest):
    """What is there stays whole, and with room it goes on to the bits it would have had."""
    log, spec = stopped / "log.jsonl", stopped / "spec.toml"
    if full == "the log":  # in the middle of the line of step 8
        limit = LIMIT.format(limit=f"__import__('os').stat({str(log)!r}).st_size + 50")
        before = AT_STEP.format(step=3, action=f"exec({limit!r})")
    elif full == "the weights":
        sizes = [file.stat().st_size for file in (log, spec)]
        before = LIMIT.format(limit=max(sizes) + 1_000)
    else:
        before = LIMIT.format(limit=checkpoints_file(stopped, 5).stat().st_size - 1)
    had = snapshot(stopped / "checkpoints")
    try:
        result = train("--out", stopped, "--resume", before=before)
    finally:
        train("--help", before=LIMIT.format(limit="most"))
    assert_refused(result, "File too large")
    file = checkpoints_file(stopped, newest)
    assert result.stderr.endswith(f"{file} is whole; --resume goes on from there\n")
    assert checkpoints(stopped)[-1] == newest
    assert {name: snapshot(stopped / "checkpoints")[name] for name in had} == had
    assert not list(stopped.rglob(".*.tmp"))
    assert (full == "the log") != log.read_bytes().endswith(b"\n")
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert_same_bits(stopped, finished[0], STEPS)


def checkpoints_file(folder, step):
    return folder / "checkpoints" / f"step-{step:08d}.safetensors"


MEMORY = """
from nfspec.backends.training import devices
patch.setattr(devices, "memory", lambda count: {bytes})
"""


def test_memory_that_does_not_suffice_for_the_batch_but_for_parts_of_it(train, place, tmp_path):
    """The advice is such that the training starts with it."""
    plan = nfspec.resolve(nfspec.load(place / "tiny.toml"))
    enough = training_bytes(plan, 2, 16, "float32", accumulate=True) / USABLE
    before = MEMORY.format(bytes=int(enough) + 1)
    result = train("--out", tmp_path / "run", before=before)
    assert_refused(result, r"^8 images of 16 px at a time need about .*; take --accumulation 4, or")
    assert not (tmp_path / "run").exists()
    options = ("--out", tmp_path / "run", "--accumulation", 4, "--stop-at", 1)
    result = train(*options, before=before)
    assert result.exit_code == 0, result.stderr


HUGE = """\
import shutil, types
from nfspec.training import session
patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**15))
def init(plan, seed): raise MemoryError("drawn")
patch.setattr(session, "init", init)
"""


def test_memory_that_does_not_suffice_for_an_image(train, tmp_path):
    """Which is found out before any weight is drawn: of 25 G parameters that takes 98 GB."""
    spec = tmp_path / "huge.toml"
    widths = "[stages]\nwidth = [8192, 16384, 32768, 32768]\n"
    spec.write_text(f'schema = "nfspec/1"\nname = "huge"\nextends = "nfnet-f0"\n{widths}')
    spec.write_text(spec.read_text().replace("extends", 'source = "a test"\nextends'))
    result = train("--out", tmp_path / "run", "--batch", 8, spec=spec, before=HUGE)
    assert_refused(result, r"^huge: to train this network of 24,449,813,919 .* are free; take a ma")
    result = train("--out", tmp_path / "run", before=HUGE + MEMORY.format(bytes=1000))
    assert_refused(result, r"1\S* kB are free; take a smaller --size, or a device with more$")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError()",
        "__import__('torch').OutOfMemoryError('CUDA out of memory')",
        "type('ResourceExhaustedError', (Exception,), {})('OOM when allocating tensor')",
        "type('XlaRuntimeError', (RuntimeError,), {})('RESOURCE_EXHAUSTED: Out of memory')",
        "RuntimeError('[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: "
        "can\\'t allocate memory: you tried to allocate 8 bytes.')",
    ],
    ids=["Python", "torch, CUDA", "TensorFlow", "JAX", "torch, CPU"],
)
def test_memory_that_does_not_suffice_after_all(train, tmp_path, error):
    before = AT_STEP.format(step=4, action=f"raise {error}")
    result = train("--out", tmp_path / "run", before=before)
    assert_refused(result, "8 images of 16 px at a time do not fit the memory; take a smaller")
    assert result.stderr.endswith(
        "step-00000003.safetensors is whole; --resume goes on from there\n"
    )


def test_any_other_error_is_not_taken_for_that(train, tmp_path):
    before = AT_STEP.format(step=2, action="raise RuntimeError('shapes differ')")
    result = train("--out", tmp_path / "run", before=before)
    assert "RuntimeError: shapes differ" in result.unexpected
    assert "memory" not in result.stderr


def test_a_training_that_diverges_says_what_to_do(train, tmp_path):
    (tmp_path / "wild.toml").write_text("[recipe]\nweight_decay = 1e6\n")
    options = (
        "--lr",
        1000,
        "--warmup",
        0,
        "--clipping",
        "none",
        "--recipe",
        tmp_path / "wild.toml",
    )
    result = train("--out", tmp_path / "run", *options)
    assert_refused(
        result, r"step \d+: the loss is (nan|inf), at a learning rate of .* \(--lr\), or"
    )
    assert "(--clipping 0.01)" in result.stderr
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert np.isfinite(losses).all()


# Interruptions.


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(train, finished, stopped):
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "going on after step 5 of 12" in result.stderr
    assert_same_bits(stopped, finished[0], STEPS)


def test_what_was_interrupted_before_its_first_evaluation_can_be_resumed(train, tmp_path):
    """Even to a step that lies behind it: there is nothing to do, and nothing to report."""
    before = AT_STEP.format(step=2, action=INTERRUPT)
    assert train("--out", tmp_path / "run", before=before).exit_code == 130
    result = train("--out", tmp_path / "run", "--resume", "--stop-at", 1)
    assert result.unexpected == ""


BEFORE_IT = """
import os, signal, sys
from nfspec.training import frameworks
start = frameworks.start
def interrupted(backend):
    os.kill(os.getpid(), signal.{name})
    start(backend)
patch.setattr(frameworks, "start", interrupted)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_before_it_trains_leaves_nothing(train, tmp_path, name):
    """While a framework is imported, or the network built."""
    result = train("--out", tmp_path / "run", before=BEFORE_IT.format(name=name))
    assert (result.exit_code, result.unexpected, result.stdout) == (130, "", "")
    assert "stopping; again: at once\n" in result.stderr
    assert result.stderr.endswith("\ninterrupted\n")
    assert not (tmp_path / "run").exists()


def test_a_terminal_that_hangs_up_leaves_a_checkpoint(train, finished, tmp_path):
    hang_up = INTERRUPT.replace("SIGINT", "SIGHUP")
    result = train("--out", tmp_path / "run", before=AT_STEP.format(step=5, action=hang_up))
    assert result.exit_code == 130, result.stderr
    assert checkpoints(tmp_path / "run") == [3, 5]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert train("--out", tmp_path / "run", "--resume").exit_code == 0
    assert_same_bits(tmp_path / "run", finished[0], STEPS)


def test_a_second_interruption_ends_it_at_once(train, tmp_path):
    before = AT_STEP.format(step=5, action=f"{INTERRUPT}; os.kill(os.getpid(), signal.SIGINT)")
    result = train("--out", tmp_path / "run", before=before)
    assert (result.exit_code, result.unexpected) == (130, "")
    assert result.stderr.endswith("again: at once\ninterrupted\n")
    assert checkpoints(tmp_path / "run") == [3]
    assert log_of(tmp_path / "run")[-1]["step"] == 4


@pytest.mark.slow  # half a minute, mostly of starting processes
def test_ctrl_c_and_sigterm_from_outside(place, finished, tmp_path):
    """Of a process that is somewhere in its training, whose twelve steps would take minutes."""
    code = "import time, pytest\npatch = pytest.MonkeyPatch()\n"
    code += AT_STEP.replace("len(calls) == {step}", "len(calls) > 4").format(action="time.sleep(1)")
    code += "from nfspec.cli import main\nmain()"
    out = tmp_path / "run"
    arguments = ["train", place / "tiny.toml", place / "data", "--backend", "torch", "--out", out]
    for number, resume in ((signal.SIGINT, []), (signal.SIGTERM, ["--resume"])):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *resume],
            env={**ENVIRONMENT, "KERAS_BACKEND": "torch"},
            stderr=subprocess.PIPE,
            text=True,
        )
        had, began = len(log_of(out)) if resume else 0, time.monotonic()
        while not (out / "log.jsonl").exists() or len(log_of(out)) < had + 2:
            assert process.poll() is None and time.monotonic() - began < 60
            time.sleep(0.02)
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert stderr.endswith("; go on with --resume\n")
    steps = len([entry for entry in log_of(out) if "loss" in entry])
    assert 4 <= steps < STEPS
    process = subprocess.run(
        [sys.executable, "-m", "nfspec", *arguments, "--resume"],
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    assert_same_bits(out, finished[0], STEPS)


# Weights to start from.


def test_what_is_not_this_networks_weights_is_refused(train, finished, tmp_path):
    whole = (finished[0] / "weights.safetensors").read_bytes()
    other = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    nfspec.weights.save(tmp_path / "other.safetensors", other, nfspec.init(other))
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.npz").write_text("text")
    messages = {
        "other.safetensors": "not fit tiny",
        "half.safetensors": "damaged or cut short",
        "empty.safetensors": "empty file",
        "text.npz": "text.npz: ",
    }
    for name, message in messages.items():
        file = tmp_path / name
        result = train("--out", tmp_path / "run", "--init", file)
        assert_refused(result, f"{name}.*{message}|{message}")
        assert snapshot(tmp_path / "run") == {}


def test_advice_on_weights_is_of_options_that_there_are(train, tmp_path):
    for file in (tmp_path / "weights.bin", tmp_path):
        result = train("--out", tmp_path / "run", "--init", file)
        assert_refused(result, re.escape(str(file)))
        assert "--from" not in result.stderr


def test_training_starts_from_weights_and_draws_a_classifier_where_it_must(
    train, finished, place, tmp_path
):
    """The first step's learning rate is zero, so that the averages after it are the weights, but
    for three roundings."""
    weights, _ = read_all(finished[0] / "weights.safetensors")
    data = shutil.copytree(place / "data", tmp_path / "data")
    two = shutil.copytree(place / "data", tmp_path / "two")
    shutil.rmtree(two / "red")
    cases = [([], data, False), (["--new-head"], data, True), ([], two, True)]
    for number, (options, images, drawn) in enumerate(cases):
        out = tmp_path / str(number)
        start = ("--init", finished[0] / "weights.safetensors", "--warmup", 1, "--stop-at", 1)
        result = train("--out", out, *start, *options, data=images)
        assert result.exit_code == 0, result.stderr
        assert ("with a new classifier" in result.stderr) == drawn
        found, _ = read_all(out / "weights.safetensors")
        for name, array in weights.items():
            fits = found[name].shape == array.shape
            same = fits and np.allclose(found[name], array, rtol=2**-22, atol=0)
            assert same == (not (drawn and name.startswith("head."))), name


def test_a_pattern_that_is_for_no_parameter_freezes_nothing(train, tmp_path):
    result = train("--out", tmp_path / "run", "--freeze", "steam.*")
    assert_refused(result, r'freeze: no parameter is called "steam\.\*"; \* is any run')
    assert snapshot(tmp_path / "run") == {}  # so that the command works once it is mended
    assert_refused(train("--out", tmp_path / "other", "--freeze", "*"), "nothing is left to train")
