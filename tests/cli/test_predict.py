"""`nfspec predict` and `nfspec embed`: trainings, specs with weights, and images of all kinds."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data.preprocessing import Preprocessing
from nfspec.training.scores import probabilities
from nfspec.weights import container

from served import assert_refused
from tiny import CLASSES


@pytest.fixture
def predict(nfspec_on_torch):
    return lambda *arguments, before="": nfspec_on_torch("predict", *arguments, before=before)


@pytest.fixture(scope="module")
def run(finished):
    """The folder of a whole training, its images, and the reference's probabilities of them."""
    folder = finished[0]
    spec = nfspec.load(folder / "spec.toml")
    params = nfspec.weights.load(folder / "weights.safetensors", nfspec.resolve(spec))
    data = json.loads((folder / "run.json").read_text())["data"]
    images = sorted(nfspec.data.photos.Path(data).rglob("*.png"))
    x = Preprocessing(spec.input, 16)(images)
    return folder, data, images, nfspec.reference.forward(nfspec.resolve(spec), params, x)


def test_three_forms_say_the_references_answers(predict, run):
    folder, data, images, exact = run
    shares = probabilities(exact["logits"])
    result = predict(folder, data, "--json")
    assert (result.exit_code, result.unexpected, result.stderr) == (0, "", "")
    found = json.loads(result.stdout)
    assert (found["network"], found["runs_on"], found["size"]) == ("tiny", "torch", 16)
    assert (found["names"], found["left_out"]) == ("the training", [])
    assert [each["image"] for each in found["images"]] == list(map(str, images))
    for each, row in zip(found["images"], shares, strict=True):
        assert [guess["index"] for guess in each["classes"]] == np.argsort(-row).tolist()
        for guess in each["classes"]:
            assert guess["probability"] == pytest.approx(row[guess["index"]], rel=1e-4)
            assert guess["name"] == CLASSES[guess["index"]]
    rows = list(csv.DictReader(io.StringIO(predict(folder, data, "--csv").stdout)))
    assert len(rows) == 90
    for row, (each, guess) in zip(
        rows, [(e, g) for e in found["images"] for g in e["classes"]], strict=True
    ):
        assert (row["image"], row["name"]) == (each["image"], guess["name"])
        assert row["probability"] == f"{guess['probability']:.6f}"
    lines = predict(folder, images[0], "--top", 1).stdout.splitlines()
    best = found["images"][0]["classes"][0]
    assert lines == [
        "tiny at 16 px on torch; names of classes: the training",
        "",
        str(images[0]),
        f"  {best['probability']:7.2%}  {best['name']}",
    ]


def test_a_spec_with_weights_has_names_from_a_training_or_a_file(predict, run, place, tmp_path):
    folder, _, images, _ = run
    how = ("--weights", folder / "weights.safetensors", "--backend", "torch", "--top", 5000)
    spec, image = place / "tiny.toml", images[0]
    lines = predict(spec, image, *how).stdout.splitlines()
    assert lines[0].endswith("; classes without names, which --classes FILE gives")
    assert sorted(line.split("%  ")[1] for line in lines[3:]) == ["class 0", "class 1", "class 2"]
    own = predict(spec, image, *how, "--classes", folder).stdout.splitlines()
    assert own[3:] == predict(folder, image).stdout.splitlines()[3:]
    (tmp_path / "names.txt").write_text("x\n" + 200 * "y" + "\nz\n")
    long = predict(spec, image, *how, "--classes", tmp_path / "names.txt").stdout
    assert max(map(len, long.splitlines()[3:])) == 80


def test_a_thousand_classes_have_imagenets_names(predict, place, tmp_path, run):
    spec = nfspec.load(place / "tiny.toml", {"head.classes": 1000})
    plan = nfspec.resolve(spec)
    nfspec.weights.save(tmp_path / "w.safetensors", plan, nfspec.init(plan))
    how = ("--set", "head.classes=1000", "--weights", tmp_path / "w.safetensors")
    result = predict(place / "tiny.toml", run[2][0], *how, "--csv", "--top", 1000)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    known = {(row["index"], row["synset"], row["name"]) for row in rows}
    assert len(known) == 1000 and ("207", "n02099601", "golden retriever") in known


def test_bad_images_are_named_and_the_others_go_on(predict, run, tmp_path):
    folder, _, images, _ = run
    shutil.copy(images[0], tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "\x1b[31m.png").write_text("")
    Image.new("I;16", (4, 4), 1000).save(tmp_path / "deep.png")
    Image.new("CMYK", (40, 30)).save(tmp_path / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "lost.jpg").symlink_to("nowhere")
    result = predict(folder, tmp_path, tmp_path / "none.png", "--csv", "--top", 1)
    assert (result.exit_code, result.unexpected) == (1, "")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    names = [row["image"].rpartition("/")[2] for row in rows]
    assert names == ["cmyk.jpg", "good.png", "one.png"]
    said = result.stderr.splitlines()
    assert len(said) == 5 and all(": cannot be read (" in line for line in said)
    assert r"/\x1b[31m.png: cannot be read (none of" in said[0]
    assert said[-1] == f"{tmp_path}/none.png: cannot be read (No such file or directory); left out"


def test_what_cannot_be_used_is_a_sentence(predict, run, place, tmp_path):
    folder, _, images, _ = run
    assert_refused(predict(folder, images[0], "--json", "--csv"), "^--json and --csv: give one")
    assert_refused(predict(folder, tmp_path / "none.png"), "\nnone of the images can be read$")
    assert_refused(predict(folder, tmp_path), "no images in it")
    assert_refused(predict(place / "tiny.toml", images[0]), "a spec and not a training; give --wei")
    plan = nfspec.resolve(nfspec.load(folder / "spec.toml"))
    params = nfspec.weights.load(folder / "weights.safetensors", plan)
    params["head.fc.bias"] = np.full(3, np.nan, np.float32)
    nfspec.weights.save(tmp_path / "nan.safetensors", plan, params)
    result = predict(folder, images[0], "--weights", tmp_path / "nan.safetensors")
    assert_refused(result, "the network's output is not a finite number; its weights are damaged")


def test_weights_of_other_classes(predict, nfspec_on_torch, run, place, tmp_path):
    """The advice in the error works; and an embedding needs no classifier."""
    folder, _, images, exact = run
    plan = nfspec.resolve(nfspec.load(folder / "spec.toml"))
    params = nfspec.weights.load(folder / "weights.safetensors", plan)
    four = nfspec.resolve(nfspec.load(place / "tiny.toml", {"head.classes": 4}))
    state = nfspec.weights.to_timm(plan, params)
    other = nfspec.weights.fit(params, four).params
    nfspec.weights.to_timm_file(tmp_path / "four.safetensors", four, other)
    torso = {name: value for name, value in state.items() if not name.startswith("head.fc")}
    container.write(tmp_path / "none.safetensors", torso, {"format": "pt"})
    spec, how = place / "tiny.toml", ("--weights", tmp_path / "four.safetensors")
    result = predict(spec, images[0], *how)
    assert_refused(result, r"four\.safetensors: has a classifier of 4 classes, and tiny has 3; add")
    advice = result.stderr.rpartition("add ")[2].split()
    assert predict(spec, images[0], *how, *advice, "--csv").exit_code == 0
    none = ("--weights", tmp_path / "none.safetensors")
    assert_refused(
        predict(spec, images[0], *none), r"none\.safetensors: has no classifier, so that"
    )
    for n, each in enumerate((how, none)):
        out = tmp_path / f"{n}.npz"
        assert nfspec_on_torch("embed", spec, images[0], *each, "--out", out).exit_code == 0
        with np.load(out) as file:
            assert file["embeddings"] == pytest.approx(exact["pool"][:1], rel=1e-4, abs=1e-6)


def test_embeddings_are_written(nfspec_on_torch, run, tmp_path):
    folder, data, images, exact = run
    out = tmp_path / "e.npz"
    result = nfspec_on_torch("embed", folder, data, tmp_path / "none.png", "--out", out)
    assert (result.exit_code, result.unexpected) == (1, "")
    assert result.stdout == f"wrote {out}: 30 images, 32 numbers each\n"
    assert "none.png: cannot be read (No such file or directory); left out" in result.stderr
    with np.load(out) as file:
        assert file["embeddings"] == pytest.approx(exact["pool"], rel=1e-4, abs=1e-6)
        assert file["images"].tolist() == list(map(str, images))
    again = nfspec_on_torch("embed", folder, data, "--out", out)
    assert_refused(again, "exists, and is left as it is; replace it with --force")
    other = nfspec_on_torch("embed", folder, data, "--out", tmp_path / "e.csv")
    assert_refused(other, r"/e\.csv: expected a name that ends in \.npz or \.parquet$")
