"""Predictions and embeddings of a model of this process, on each framework."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import nfspec
from nfspec.training.scores import probabilities

import networks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A network, two photographs, and the reference's outputs for them."""
    spec = networks.network("plain", tmp_path_factory.mktemp("place"))
    plan = nfspec.resolve(spec)
    params, _ = networks.drawn(plan)
    photos = [load_sample_image("china.jpg")[:90, :120], load_sample_image("flower.jpg")[:50, :50]]
    return (
        plan,
        params,
        photos,
        nfspec.reference.forward(plan, params, nfspec.preprocess(spec)(photos)),
    )


def test_a_model_is_asked_as_it_is(place, backend):
    plan, params, photos, exact = place
    model = nfspec.compile(plan, backend, params)
    found = nfspec.predict(model, photos, classes=["x", "y", "z"])
    assert [each.image for each in found] == ["image 0", "image 1"]
    for each, row in zip(found, probabilities(exact["logits"]), strict=True):
        assert [guess.index for guess in each.guesses] == np.argsort(-row).tolist()
        for guess in each.guesses:
            assert guess.probability == pytest.approx(row[guess.index], rel=1e-4)
    with pytest.raises(nfspec.InputError, match="has no output pool; export or compile it with"):
        nfspec.embed(model, photos)
    with pytest.raises(nfspec.InputError, match="backend: a model, in which this is settled"):
        nfspec.predict(model, photos, backend=backend)


def test_a_model_with_taps_and_channels_first(place, backend):
    if backend == "tensorflow":
        pytest.skip("its convs on CPUs have channels last")
    plan, params, photos, exact = place
    model = nfspec.compile(plan, backend, params, taps=True, data_format="channels_first")
    found = nfspec.embed(model, photos)
    assert found.vectors == pytest.approx(exact["pool"], rel=1e-4, abs=1e-6)
    (best,) = nfspec.predict(model, photos[0], top=1)
    assert best.guesses[0].index == exact["logits"][0].argmax()
