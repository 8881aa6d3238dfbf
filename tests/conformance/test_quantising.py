"""Files in int8: measured beside float32, near it, and never called equal."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nfspec
from nfspec.backends.exporters import onnx as format_onnx
from nfspec.backends.exporters.formats import FORMATS
from nfspec.cli import app
from nfspec.conformance import quantising
from nfspec.errors import BackendError, InputError

import networks

SUFFIXES = {name: each.suffix for name, each in FORMATS.items() if each.quantise}
NOT_BY_DEFAULT = [pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "litert")]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    plan = nfspec.resolve(networks.network("plain", tmp_path_factory.mktemp("specs")))
    return plan, networks.drawn(plan)[0]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 44, 3), np.uint8) for _ in range(10)]


@pytest.mark.parametrize("to", ["onnx", *NOT_BY_DEFAULT])
def test_a_file_is_near_the_network_and_smaller(to, network, images, tmp_path):
    plan, params = network
    path = tmp_path / f"a{SUFFIXES[to]}"
    found = nfspec.quantise(
        plan, to, path, params, images, size=(32, 32), classes=[f"c{n}" for n in range(3)]
    )
    assert {each.name for each in tmp_path.iterdir()} == {
        each.name for each in FORMATS[to].parts(path)
    }
    assert (found.calibration, found.held_out) == (5, 5)
    assert list(found.layers) == list(plan.taps)
    # A step of int8 is 1/127 of the largest value; a layer has more than one.
    assert all(1e-4 < gap < 0.5 for gap in found.layers.values())
    assert 0 <= found.agreement <= 1
    # OpenVINO writes a description of each step of int8, more than so few weights take.
    assert found.bytes < 1.2 * found.float_bytes
    with pytest.raises(InputError, match="its weights are int8"):
        nfspec.verify(path)
    answers = nfspec.predict(path, images[:2], top=1)
    assert {each.guesses[0].name for each in answers} <= {f"c{n}" for n in range(3)}


def test_images_of_calibration_are_not_those_of_the_comparison(network, images, tmp_path):
    plan, params = network
    made = quantising.Network(plan, params, quantising.Settings().checked(plan))
    pictures = quantising._pictures(made, quantising.photos(images), 0)
    first, second = pictures.first.names, pictures.second.names
    assert not {*first} & {*second} and len(first) + len(second) == len(images)
    again = quantising._pictures(made, quantising.photos(images), 1)
    assert again.first.names != first


def test_a_network_that_is_far_is_seen(network, images, tmp_path, monkeypatch):
    """Another network in the place of the quantised one."""
    plan, params = network
    other = {name: value * np.float32(1.5) for name, value in params.items()}

    def wrong(path, made, batches):
        format_onnx.write(path, quantising.replace(made, params=other))

    form = quantising.replace(format_onnx.FORMAT, quantise=wrong)
    monkeypatch.setattr(quantising, "format_of", lambda name: form)
    found = nfspec.quantise(plan, "onnx", tmp_path / "a.onnx", params, images, size=(32, 32))
    assert found.layers["logits"] > 0.2


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"size": (32, 40)}, "square images"),
        ({"batch": 6}, "expected 12 images or more; found 10"),
        ({"classes": ["a"]}, "expected 3 names"),
        ({"outputs": ["logit"]}, "did you mean"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_is_not_possible(choices, message, network, images, tmp_path):
    plan, params = network
    with pytest.raises(InputError, match=message):
        nfspec.quantise(plan, "onnx", tmp_path / "a.onnx", params, images, **choices)
    assert not list(tmp_path.iterdir())


def test_formats_that_have_none(network, images, tmp_path):
    with pytest.raises(InputError, match="one of onnx, openvino, litert has"):
        nfspec.quantise(network[0], "torch", tmp_path / "a.pt2", network[1], images)


def test_an_image_that_cannot_be_read(network, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    given = [*images, tmp_path / "broken.png"]
    with pytest.raises(InputError, match=r"broken\.png"):
        nfspec.quantise(network[0], "onnx", tmp_path / "a.onnx", network[1], given, size=(32, 32))


def test_on_the_command_line(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    networks.network("plain", tmp_path)
    (tmp_path / "photos").mkdir()
    for n, image in enumerate(images[:6]):
        Image.fromarray(image).save(tmp_path / "photos" / f"{n}.png")
    arguments = ["export", "plain.toml", "--to", "onnx", "--size", "32", "--int8", "photos"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "NOT EQUAL to plain" in done.stdout and "calibrated on 3 images" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = CliRunner().invoke(app, [*arguments, "--json", "--force", "--out", "b.onnx"])
    said = json.loads(done.stdout)
    assert said["same"] is False and said["calibration"] == 3 and "logits" in said["layers"]
    done = CliRunner().invoke(app, [*arguments, "--dtype", "f16", "--force"])
    assert done.exit_code == 2 and "--int8: has no --dtype" in done.stderr


def test_a_quantiser_that_fails_is_told_in_a_sentence(network, images, tmp_path, monkeypatch):
    def fails(path, made, batches):
        raise RuntimeError("no such node\nand more")

    form = quantising.replace(format_onnx.FORMAT, quantise=fails)
    monkeypatch.setattr(quantising, "format_of", lambda name: form)
    with pytest.raises(BackendError, match=r"onnx: what writes such files fails: no such node$"):
        nfspec.quantise(network[0], "onnx", tmp_path / "a.onnx", network[1], images, size=(32, 32))
    assert not list(tmp_path.iterdir())
