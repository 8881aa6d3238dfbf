"""Exported files on labelled images: the predictions of the model, without a framework."""

import importlib.util

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nfspec
from nfspec.backends.exporters.formats import FORMATS
from nfspec.cli import app
from nfspec.data.images import prepare
from nfspec.training.evaluating import evaluate
from nfspec.training.scores import score

import folders
import networks

SIDE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images of three classes, and a file for each choice."""
    folder = tmp_path_factory.mktemp("place")
    folders.pictures(folder / "photos", a=3, b=2, c=4)
    spec = networks.network("plain", folder)
    plan = nfspec.resolve(spec)
    params, _ = networks.drawn(plan)
    choices = {
        "free": {},
        "pixels": {"preprocess": True, "layout": "nchw"},
        "fixed": {"size": (SIDE, SIDE), "batch": 2},
        "pool": {"outputs": ("pool",), "size": (SIDE, 40), "batch": 1},
    }
    for name, choice in choices.items():
        nfspec.export(plan, "onnx", folder / f"{name}.onnx", params, **choice)
    images = sorted((folder / "photos").rglob("*.png"))
    x = np.concatenate([prepare(path, spec.input, SIDE) for path in images])
    labels = np.array(["abc".index(path.parent.name) for path in images])
    return folder, score(nfspec.reference.forward(plan, params, x)["logits"], labels)


@pytest.mark.parametrize("name", ["free", "pixels", "fixed"])
@pytest.mark.parametrize("runtime", [None, "openvino"])
def test_predictions_are_those_of_the_network(name, runtime, place):
    folder, exact = place
    found = evaluate(folder / f"{name}.onnx", folder / "photos", runtime=runtime, batch=4)
    assert (found.name, found.size, found.left_out) == ("plain", SIDE, 0)
    assert (found.score.images, found.score.top1) == (9, exact.top1)
    assert found.score.loss == pytest.approx(exact.loss, rel=1e-4)


@pytest.mark.slow  # to convert a network takes seconds in most formats
@pytest.mark.parametrize(
    "to", [name for name in FORMATS if name not in ("onnx", "openvino", "aotinductor")]
)
def test_predictions_of_every_format_are_those_of_the_network(to, place, tmp_path):
    folder, exact = place
    if absent := [name for name in FORMATS[to].packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed")
    plan = nfspec.resolve(nfspec.load(str(folder / "plain.toml")))
    params, _ = networks.drawn(plan)
    path = tmp_path / f"a{FORMATS[to].suffix}"
    nfspec.export(plan, to, path, params, size=(SIDE, SIDE))
    found = evaluate(path, folder / "photos", batch=4)
    assert (found.name, found.score.images, found.score.top1) == ("plain", 9, exact.top1)
    assert found.score.loss == pytest.approx(exact.loss, rel=1e-4)


def test_on_the_command_line(place):
    folder, exact = place
    arguments = ["evaluate", folder / "free.onnx", folder / "photos", "--runtime", "onnxruntime"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.stderr
    assert f"{exact.top1:,} of 9" in done.stdout.splitlines()[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("free.onnx",), "give DATA, too"),
        (("free.onnx", "photos", "--runtime", "onnx"), "runtime: expected one of onnxruntime"),
        (("free.onnx", "photos", "--backend", "torch"), "backend: free.onnx is an exported file"),
        (
            ("plain.toml", "photos", "--runtime", "onnxruntime"),
            "runtime: for exported files; plain.toml is none",
        ),
        (("fixed.onnx", "photos", "--size", "40"), "takes images of 32 x 32 px alone"),
        (("pool.onnx", "photos"), "takes images of 32 x 40 px alone"),
        (("free.onnx", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(arguments, message, place, monkeypatch):
    monkeypatch.chdir(place[0])
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_takes_pixels_is_given_no_others(place, tmp_path):
    """DeepMind's filter keeps values beyond 0 to 255, which bytes would turn round."""
    noise = np.random.default_rng(0).integers(0, 2, (40, 40, 3), dtype=np.uint8) * 255
    Image.fromarray(noise).save(tmp_path / "noise.png")
    file = place[0] / "pixels.onnx"
    assert len(nfspec.predict(file, tmp_path)) == 1
    with pytest.raises(nfspec.InputError, match="takes pixels of 0 to 255, and DeepMind's filter"):
        nfspec.predict(file, tmp_path, original=True)
    assert len(nfspec.predict(place[0] / "free.onnx", tmp_path, original=True)) == 1
