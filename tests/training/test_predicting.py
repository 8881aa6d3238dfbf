"""Predictions and embeddings from Python, by an exported file: no framework is needed."""

import numpy as np
import pytest

import nfspec
from nfspec.data.preprocessing import Preprocessing
from nfspec.training.embeddings import write_embeddings
from nfspec.training.scores import probabilities

import folders
import networks

SIDE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and a file, and the reference's outputs for the images."""
    folder = tmp_path_factory.mktemp("place")
    folders.pictures(folder / "photos", a=3, b=2)
    spec = networks.network("plain", folder)
    plan = nfspec.resolve(spec)
    params, _ = networks.drawn(plan)
    nfspec.export(plan, "onnx", folder / "net.onnx", params, outputs=("logits", "pool"))
    images = sorted((folder / "photos").rglob("*.png"))
    x = Preprocessing(spec.input, SIDE)(images)
    return folder, images, nfspec.reference.forward(plan, params, x)


def test_predictions_are_the_references(place):
    folder, images, exact = place
    found = nfspec.predict(folder / "net.onnx", folder / "photos", batch=2)
    shares = probabilities(exact["logits"])
    assert [each.image for each in found] == list(map(str, images))
    for each, row in zip(found, shares, strict=True):
        assert [guess.index for guess in each.guesses] == np.argsort(-row).tolist()
        for guess in each.guesses:
            assert guess.probability == pytest.approx(row[guess.index], rel=1e-4)
            assert (guess.name, guess.synset) == (f"class {guess.index}", "")


def test_names_and_the_number_of_classes(place):
    folder, images, _ = place
    (found,) = nfspec.predict(folder / "net.onnx", images[0], top=2, classes=["x", "y", "z"])
    assert len(found.guesses) == 2
    assert all(guess.name == "xyz"[guess.index] for guess in found.guesses)


def test_embeddings_are_the_references_and_are_written(place, tmp_path):
    folder, images, exact = place
    found = nfspec.embed(folder / "net.onnx", [folder / "photos" / "b", images[0]], batch=2)
    rows = exact["pool"][[3, 4, 0]]
    assert found.vectors == pytest.approx(rows, rel=1e-4, abs=1e-6)
    assert found.vectors.dtype == np.float32
    assert found.images == (*map(str, images[3:]), str(images[0]))
    write_embeddings(tmp_path / "a.npz", found)
    with np.load(tmp_path / "a.npz") as file:  # no pickles in it
        assert (file["embeddings"] == found.vectors).all()
        assert tuple(file["images"]) == found.images
    write_embeddings(tmp_path / "a.parquet", found)
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert tuple(table["image"]) == found.images
    assert (np.asarray(table["embedding"], np.float32) == found.vectors).all()


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(place):
    folder, images, _ = place
    given = [images[0], folder / "none.png", folder / "plain.toml"]
    with pytest.raises(nfspec.InputError, match=r"none\.png: cannot be read \(No such file"):
        nfspec.predict(folder / "net.onnx", given)
    messages = []
    (found,) = nfspec.predict(folder / "net.onnx", given, on_bad=messages.append)
    assert found.image == str(images[0])
    assert [message.partition(": ")[0] for message in messages] == list(map(str, given[1:]))
    with pytest.raises(nfspec.InputError, match=r"^none of the images can be read$"):
        nfspec.embed(folder / "net.onnx", given[1:], on_bad=messages.append)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top: expected a whole number of classes from 1 on; found 0"),
        ({"batch": 0}, "batch: expected a whole number of images from 1 on; found 0"),
        ({"size": 1.5}, "size: expected a whole number of px from 1 on; found 1.5"),
        ({"original": 1}, "original: expected True or False; found 1"),
        ({"weights": "a.npz"}, "in which this is settled; leave it out"),
        ({"overrides": {"head.classes": 3}}, "set: "),
        ({"runtime": "tflite"}, "runtime: expected one of onnxruntime"),
        (
            {"classes": ["x"]},
            "classes: expected names for 3 classes, which the network has; found 1",
        ),
    ],
)
def test_arguments_are_checked(arguments, message, place):
    folder, images, _ = place
    with pytest.raises(nfspec.InputError) as error:
        nfspec.predict(folder / "net.onnx", images, **arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("photos/a/0.png", "an image, where a network was expected: name that first"),
        ("a.safetensors", "give the file as --weights "),
        ("plain.toml", "is a spec and not a training; give --weights, too"),
        ("photos", "no training in it (no run.json)"),
        ("runs/none", 'no built-in spec "runs/none"'),
        ("nfnet-fo", 'did you mean "nfnet-f0"?'),
        (3, "network: expected the folder of a training, the name or file of a spec, an"),
    ],
)
def test_what_is_no_network_is_a_sentence(network, message, place, monkeypatch):
    monkeypatch.chdir(place[0])
    (place[0] / "a.safetensors").touch()
    with pytest.raises(nfspec.NfspecError) as error:
        nfspec.predict(network, place[1])
    assert message in str(error.value)
