"""Feature pyramids, embeddings and chosen taps of compiled networks."""

import copy
import os

import numpy as np
import pytest

import nfspec
from nfspec.backends.running import forward_function
from nfspec.errors import InputError, WeightError

import networks

BACKEND = os.environ.get("KERAS_BACKEND", "jax")
# Rounding of float32 in networks of some ten layers, as a share of the largest value.
CLOSE = 1e-5


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    plan = nfspec.resolve(networks.network("plain", tmp_path_factory.mktemp("specs")))
    params, _ = networks.drawn(plan)
    x = np.random.default_rng(0).standard_normal((2, 37, 46, plan.channels), np.float32)
    return plan, params, x, nfspec.reference.forward(plan, params, x)


def close(found, exact):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= CLOSE * np.abs(exact).max()


@pytest.mark.parametrize("how", [{}, {"folded": True}, {"plain": True}])
def test_a_feature_pyramid(how, network):
    plan, params, x, exact = network
    model = nfspec.compile(plan, BACKEND, params, features=True, **how)
    found = forward_function(model)(x)
    assert len(found) == len(plan.features) == len(model.output)
    for feature, values in zip(plan.features, found, strict=True):
        close(values, exact[feature.name])
        assert values.shape[-1] == feature.channels


@pytest.mark.parametrize("folded", [False, True])
def test_an_embedding_needs_no_classifier(folded, network):
    plan, params, x, exact = network
    headless = {name: value for name, value in params.items() if not name.startswith("head.fc")}
    for given in (params, headless):
        model = nfspec.compile(plan, BACKEND, given, top=False, folded=folded)
        close(forward_function(model)(x), exact["pool"])
    assert not any(name.startswith("head.fc") for name in nfspec.params_of(model))


def test_taps_by_name_and_nothing_beyond_them(network):
    plan, params, x, exact = network
    name = next(name for name in plan.taps if name.startswith("stages."))
    model = nfspec.compile(plan, BACKEND, params, taps=[name, "stem"])
    found = forward_function(model)(x)
    assert {*found} == {name, "stem"}
    close(found[name], exact[name])
    close(found["stem"], exact["stem"])
    assert len(model.layers) < len(nfspec.compile(plan, BACKEND, params).layers)
    assert nfspec.params_of(model).keys() < params.keys()
    close(forward_function(copy.deepcopy(model))(x)[name], exact[name])


def test_fresh_values_are_those_of_the_whole_network(network):
    plan = network[0]
    model = nfspec.compile(plan, BACKEND, top=False)
    whole = nfspec.init(plan)
    for name, value in nfspec.params_of(model).items():
        np.testing.assert_array_equal(value, whole[name])


@pytest.mark.parametrize(
    "how, message",
    [
        ({"taps": ["stam"]}, 'did you mean "stem"'),
        ({"taps": "stem"}, "a list of names"),
        ({"taps": []}, "one name or more"),
        ({"taps": True, "features": True}, "give one of them"),
        ({"top": 0}, "top: expected True or False"),
        ({"features": True, "top": False}, "give one of them"),
    ],
)
def test_what_cannot_be_asked_for(how, message, network):
    with pytest.raises(InputError, match=message):
        nfspec.compile(network[0], BACKEND, network[1], **how)


def test_a_wrong_name_among_the_parameters_is_seen(network):
    plan, params, *_ = network
    with pytest.raises(WeightError):
        nfspec.compile(plan, BACKEND, {**params, "head.fc.kernal": np.zeros(3)}, top=False)


def test_folding_a_model_keeps_what_it_returns(network):
    plan, params, x, exact = network
    pyramid = nfspec.fold(nfspec.compile(plan, BACKEND, params, features=True))
    assert [value.shape for value in forward_function(pyramid)(x)] == [
        exact[feature.name].shape for feature in plan.features
    ]
    embedding = nfspec.fold(nfspec.compile(plan, BACKEND, params, top=False))
    close(forward_function(embedding)(x), exact["pool"])
