"""`nfspec evaluate`: trainings, specs with weights, and what is wrong with either."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data.images import prepare
from nfspec.training.scores import interval, score

from served import assert_refused
from tiny import CLASSES, EACH, log_of

HELD = 9  # of 30 images, three of each class


@pytest.fixture
def evaluate(nfspec_on_torch):
    return lambda *arguments, before="": nfspec_on_torch("evaluate", *arguments, before=before)


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """The folder of a training of five steps, in the middle of its second epoch."""
    options = ("--backend", "torch", "--stop-at", 5, "--lr", 0.02, "--seed", 3, "--held-out", 0.3)
    folder = tmp_path_factory.mktemp("trained")
    result = train("--out", folder, *options)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(trained, tmp_path / "run")


def found_by(result):
    assert (result.exit_code, result.unexpected) == (0, ""), result.stderr
    return json.loads(result.stdout)


def by_hand(spec, params, images, labels, size=16):
    """The float64 reference's score, and the largest norm of its outputs."""
    x = np.concatenate([prepare(path, spec.input, size) for path in images])
    logits = nfspec.reference.forward(nfspec.resolve(spec), params, x)["logits"]
    return score(logits, np.asarray(labels)), np.linalg.norm(logits, axis=1).max()


def test_a_training_is_evaluated_on_what_it_held_out(evaluate, trained):
    """The figures of its last evaluation: the same weights, unfolded, on the same images in one
    batch, on the same framework, are the same bits; rounded once more in the log's mean."""
    facts = json.loads((trained / "run.json").read_text())
    assert (facts["seed"], facts["held_out"]) == (3, 0.3)
    last = [entry for entry in log_of(trained) if "top1" in entry][-1]
    data = found_by(evaluate(trained, "--json", "--unfolded"))
    assert (data["images"], data["left_out"], data["size"]) == (HELD, 0, 16)
    assert (data["top1"], data["top5"], data["top5_interval"]) == (last["top1"], None, None)
    assert data["loss"] == last["held_out_loss"]
    assert data["top1_interval"] == list(interval(round(last["top1"] * HELD), HELD))


def test_a_folded_network_scores_as_an_unfolded_one(evaluate, trained, place):
    """Outputs of each are off by under 1e-5 of their norm, and a cross-entropy by at most twice
    what its outputs are."""
    spec = nfspec.load(trained / "spec.toml")
    weights = nfspec.weights.load(trained / "weights.safetensors", nfspec.resolve(spec))
    images = sorted((place / "data").glob("*/*.png"))
    labels = [CLASSES.index(path.parent.name) for path in images]
    exact, norm = by_hand(spec, weights, images, labels)
    for options in ((), ("--unfolded",), ("--batch", 7)):
        data = found_by(evaluate(trained, place / "data", "--json", *options))
        assert data["images"] == 3 * EACH
        assert data["loss"] == pytest.approx(exact.loss / 30, abs=2e-5 * norm)
        assert data["top1"] == exact.top1 / 30


def test_the_best_weights_and_another_size_on_request(evaluate, trained, place, tmp_path):
    spec = nfspec.load(trained / "spec.toml")
    best = trained / "best.safetensors"
    weights = nfspec.weights.load(best, nfspec.resolve(spec))
    images = [place / "data" / "red" / f"{n}.png" for n in range(EACH)]
    shutil.copytree(place / "data" / "red", tmp_path / "val" / "red")
    exact, norm = by_hand(spec, weights, images, [2] * EACH, 24)
    data = found_by(evaluate(trained, tmp_path, "--weights", best, "--size", 24, "--json"))
    assert (data["images"], data["size"]) == (EACH, 24)
    assert data["loss"] == pytest.approx(exact.loss / EACH, abs=2e-5 * norm)


@pytest.mark.parametrize("kind", ["nfspec", "timm"])
def test_a_spec_is_evaluated_with_weights_of_either_kind(evaluate, place, tmp_path, kind):
    spec = nfspec.load(place / "tiny.toml")
    plan = nfspec.resolve(spec)
    params = nfspec.init(plan, 3)
    file = tmp_path / "weights.safetensors"
    if kind == "nfspec":
        nfspec.weights.save(file, plan, params)
    else:
        nfspec.weights.to_timm_file(file, plan, params)
    options = ("--weights", file, "--backend", "torch", "--json")
    data = found_by(evaluate(place / "tiny.toml", place / "data", *options))
    images = sorted((place / "data").glob("*/*.png"))
    labels = [CLASSES.index(path.parent.name) for path in images]
    exact, norm = by_hand(spec, params, images, labels)
    assert data["images"] == 3 * EACH
    assert data["loss"] == pytest.approx(exact.loss / 30, abs=2e-5 * norm)


def test_text_says_what_json_does(evaluate, trained):
    data = found_by(evaluate(trained, "--json"))
    result = evaluate(trained)
    assert (result.exit_code, result.stderr) == (0, "")
    right = round(data["top1"] * HELD)
    low, high = interval(right, HELD)
    share = f"{data['top1']:7.2%}"
    assert result.stdout.splitlines() == [
        "tiny, 9 images at 16 px",
        f"top-1  {share}  (95 % interval {low:.2%} to {high:.2%}, {right} of 9)",
        f"loss   {data['loss']:.4f}",
    ]


def test_another_training_is_no_data(evaluate, trained, tmp_path):
    """And what is meant can be done otherwise."""
    other = shutil.copytree(trained, tmp_path / "other")
    result = evaluate(trained, other)
    assert_refused(result, rf"^{other}: a training, where a folder of images was expected\. ")
    assert f"nfspec evaluate {other}; nfspec plot RUN RUN puts" in result.stderr


def test_each_class_and_each_answer(evaluate, trained, place, tmp_path):
    """Beside each other, the three forms say the same; of weights that find the first class often,
    so that the mistakes are not those of a symmetric matrix."""
    plan = nfspec.resolve(nfspec.load(trained / "spec.toml"))
    params = nfspec.weights.load(trained / "weights.safetensors", plan)
    params["head.fc.bias"] = params["head.fc.bias"] + np.array([3, 0, 0], np.float32)
    nfspec.weights.save(tmp_path / "w.safetensors", plan, params)
    how = (trained, place / "data", "--weights", tmp_path / "w.safetensors", "--per-class")
    data = found_by(evaluate(*how, "--json"))
    matrix = np.diag([each["right"] for each in data["classes"]])
    for each in data["mistakes"]:
        matrix[CLASSES.index(each["label"]), CLASSES.index(each["answer"])] = each["images"]
    counts = [each["images"] for each in data["mistakes"]]
    assert counts == sorted(counts, reverse=True)
    assert (matrix.sum(1) == EACH).all() and matrix[0, 0] == EACH and matrix[1:, 0].sum() > 5
    assert data["top1"] == np.trace(matrix) / 30
    assert data["classes"] == [
        {"name": name, "images": EACH, "right": int(matrix[n, n])} for n, name in enumerate(CLASSES)
    ]
    files = ("--confusion", tmp_path / "cm.png", "--predictions", tmp_path / "out.csv")
    result = evaluate(*how, *files)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    lines = result.stdout.splitlines()
    assert lines[4].split() == [
        "class",
        "images",
        "right",
        "top-1",
        "most",
        "often",
        "taken",
        "for",
    ]
    for n, line in enumerate(lines[5:8]):
        cells = line.split()
        assert cells[:3] == [CLASSES[n], str(EACH), str(matrix[n, n])]
        wrong = matrix[n].copy()
        wrong[n] = 0
        assert cells[4:] == ([CLASSES[wrong.argmax()], f"({wrong.max()})"] if wrong.any() else [])
    assert lines[8:] == [f"wrote  {path}" for path in files[1::2]]
    with Image.open(tmp_path / "cm.png") as picture:
        assert picture.format == "PNG" and len(picture.getcolors(2**24)) > 2
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for row in rows:
        assert row["label"] == row["image"].split("/")[-2]
        assert row["right"] == str(int(row["label"] == row["predicted"]))
        assert 1 / 3 <= float(row["probability"]) <= 1
    labels, found = (
        np.asarray([CLASSES.index(row[key]) for row in rows]) for key in ("label", "predicted")
    )
    assert (np.histogram2d(labels, found, bins=range(4))[0] == matrix).all()


def test_files_that_exist_are_refused_before_anything_is_read(evaluate, tmp_path):
    for option in ("--confusion", "--predictions"):
        (tmp_path / "a").write_text("mine")
        result = evaluate("nowhere.toml", "digits", option, tmp_path / "a")
        assert_refused(result, r"/a exists, and is left as it is; replace it with --force$")
    assert (tmp_path / "a").read_text() == "mine"


def test_it_takes_the_trainings_framework(evaluate, trained):
    """And not the first that is installed, to which Keras could not change in this process. That
    the user's configuration of Keras does not show is seen by the fixture `finished`."""
    before = 'patch.delenv("KERAS_BACKEND", raising=False)'
    assert found_by(evaluate(trained, "--json", before=before))["images"] == HELD
    result = evaluate(trained, "--backend", "jax", before=before)
    assert_refused(result, "^Keras already runs on torch in this process")


def test_bad_images_are_named_and_left_out(evaluate, trained, place, tmp_path):
    data = shutil.copytree(place / "data", tmp_path / "data")
    bad = [data / "red" / "0.png", data / "blue" / "7.png"]
    for path in bad:
        path.write_text("not an image")
    result = evaluate(trained, data, "--json")
    score = found_by(result)
    assert (score["images"], score["left_out"]) == (3 * EACH - 2, 2)
    for path in bad:
        assert result.stderr.count(f"{path}: cannot be read (") == 1
    assert result.stderr.count("; left out\n") == 2


def test_where_all_images_are_bad_there_is_nothing_to_say(evaluate, trained, place, tmp_path):
    data = shutil.copytree(place / "data", tmp_path / "data")
    for path in data.glob("*/*.png"):
        path.write_text("not an image")
    assert_refused(evaluate(trained, data), rf"\n{re.escape(str(data))}: none of the images can be")


def test_where_all_images_of_the_training_are_bad_its_folder_is_named(
    evaluate, nfspec_on_torch, place, tmp_path
):
    data = shutil.copytree(place / "data", tmp_path / "data")
    options = ("--backend", "torch", "--stop-at", 1, "--out", tmp_path / "run")
    assert nfspec_on_torch("train", place / "tiny.toml", data, *options).exit_code == 0
    for path in data.glob("*/*.png"):
        path.write_text("not an image")
    result = evaluate(tmp_path / "run")
    assert_refused(result, rf"\n{re.escape(str(data))}: none of the images can be read")
    shutil.rmtree(data)
    assert_refused(
        evaluate(tmp_path / "run"), rf"^{re.escape(str(data))}: no such folder; expected"
    )


def test_a_spec_needs_images_and_weights(evaluate, place):
    message = r"tiny\.toml is a spec and not a training; give {}, too$"
    assert_refused(evaluate(place / "tiny.toml"), message.format("DATA"))
    assert_refused(evaluate(place / "tiny.toml", place / "data"), message.format("--weights"))
    assert_refused(evaluate("nfnet-f00", "digits", "--weights", "w.npz"), r"\[SPEC-NAME\]$")


def test_classes_have_to_be_those_of_the_network(evaluate, trained, place, tmp_path):
    """As many for a spec; of the same names for a training, of which some may be missing."""
    two = shutil.copytree(place / "data", tmp_path / "two")
    shutil.rmtree(two / "green")
    weights = ("--weights", trained / "weights.safetensors", "--backend", "torch")
    message = r"/two: 2 classes, and tiny has 3; expected a folder, or rows of a list, for each"
    assert_refused(evaluate(place / "tiny.toml", two, *weights), message)
    assert found_by(evaluate(trained, two, "--json"))["images"] == 2 * EACH
    (two / "green").mkdir()
    assert_refused(evaluate(trained, two), r"/two: no images in green; put some there")
    (two / "green").rename(two / "grass")
    message = r"/two: the network has no class grass; it has blue, green, red$"
    assert_refused(evaluate(trained, two), message)
    assert_refused(evaluate(trained, tmp_path / "none"), r"/none: no such folder; expected one")
    assert_refused(evaluate(trained, tmp_path / "run.json"), r"no such folder; expected one")


def test_weights_that_are_missing_damaged_or_of_another_network(evaluate, run, tmp_path):
    whole = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    assert_refused(evaluate(run), r"/weights\.safetensors: .*damaged or cut short")
    (run / "weights.safetensors").unlink()
    assert_refused(evaluate(run), r"/weights\.safetensors: cannot be read: No such file")
    other = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    nfspec.weights.save(tmp_path / "other.safetensors", other, nfspec.init(other))
    result = evaluate(run, "--weights", tmp_path / "other.safetensors")
    assert_refused(result, r"other\.safetensors.*not fit tiny")
    result = evaluate(run, "--weights", tmp_path / "other.dat")
    assert_refused(result, r"/other\.dat: its name does not say what it is")
    assert "--from" not in result.stderr  # evaluate has no such option


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "null", "{}", '{"variant": "tiny"}'], ids=repr
)
def test_a_folder_without_the_facts_of_a_training_is_none(evaluate, run, text):
    (run / "run.json").write_text(text)
    assert_refused(evaluate(run), r"/run/run\.json: not what nfspec train wrote: ")
    (run / "run.json").unlink()
    assert_refused(evaluate(run), r"/run: no training in it \(no run\.json\); give a folder that")


@pytest.mark.parametrize("changes", [{"held_out": -5}, {"classes": [1, 2, 3]}, {"seed": None}])
def test_facts_that_were_tampered_with_are_not_evaluated(evaluate, run, changes):
    """A share of -5 held out is all images but one of each class, those trained on among them."""
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | changes))
    assert_refused(
        evaluate(run), rf"/run\.json: not what nfspec train wrote: {next(iter(changes))}"
    )


def test_a_folder_without_its_spec(evaluate, run):
    (run / "spec.toml").unlink()
    assert_refused(evaluate(run), r"/spec\.toml: cannot be read: No such file")


def test_a_framework_that_there_is_not(evaluate, run):
    assert_refused(evaluate(run, "--backend", "tensorfow"), r'did you mean "tensorflow"\?$')


def test_weights_that_are_not_numbers_are_right_about_nothing(evaluate, trained, tmp_path):
    plan = nfspec.resolve(nfspec.load(trained / "spec.toml"))
    params = nfspec.weights.load(trained / "weights.safetensors", plan)
    params["head.fc.bias"] = np.full(3, np.nan, np.float32)
    nfspec.weights.save(tmp_path / "nan.safetensors", plan, params)
    result = evaluate(trained, "--weights", tmp_path / "nan.safetensors")
    assert (result.exit_code, result.unexpected) == (0, "")
    assert result.stdout.splitlines()[1].endswith(" 0 of 9)")
