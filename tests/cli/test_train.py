"""`nfspec train`, from its arguments to the files it leaves, on PyTorch and a few small images.

Most calls go to one process that stays.
"""

import json
import os
import re
import shutil

import pytest

import nfspec

from served import assert_refused
from tiny import CLASSES, EACH, FILES, STEPS, assert_same_bits, checkpoints, log_of, snapshot


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
    assert lines[1].startswith("best ")  # among three classes, five are all
    assert "top-5" not in result.stderr
    assert lines[2].startswith(f"wrote  {tmp_path / 'run'}/weights.safetensors")
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
    scalars = {(name, step): value for name, value, step in map(json.loads, lines)}
    assert len(scalars) == len(lines)
    expected = {}
    for entry in log_of(out):
        step, group = entry.pop("step"), "train" if "loss" in entry else "held_out"
        stages = entry.pop("clip_fraction_of", {})
        expected |= {(f"{group}/{name}", step): value for name, value in entry.items()}
        expected |= {(f"clip_fraction_of/{n}", step): value for n, value in stages.items()}
    speeds = {("train/images_per_second", step) for step in (1, 2, 3)}
    assert {key: value for key, value in scalars.items() if key not in speeds} == expected
    assert train("--out", tmp_path / "real", "--stop-at", 1, "--tensorboard").exit_code == 0
    assert len(list((tmp_path / "real" / "tensorboard").iterdir())) == 1


def test_class_weights_are_said_and_weigh_the_loss(train, finished, tmp_path):
    result = train("--out", tmp_path / "run", "--stop-at", 1, "--class-weights", "red=4,blue=0.5")
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    assert "\nclass weights  red 4, green 1, blue 0.5\n" in result.stderr
    assert "label smoothing 0.1, with class weights\n" in result.stderr
    (first, *_), (other, *_) = log_of(tmp_path / "run"), log_of(finished[0])
    assert first["loss"] > 1.2 * other["loss"] and first["accuracy"] == other["accuracy"]


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
        (("--devices", "3"), r"^--batch: 8 images do not divide among 3 devices$"),
        (
            ("--accumulation", "4", "--devices", "4"),
            r"^--batch: 2 images do not divide among 4 devices$",
        ),
        (("--warmup", "4"), r"^warmup_epochs: 4 of 4 epochs leave none of the 12 steps"),
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
    assert "head.fc: a new classifier of" in result.stderr
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
