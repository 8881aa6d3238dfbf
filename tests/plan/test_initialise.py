"""Initial weights: the right distributions, and the same bits everywhere."""

import hashlib

import numpy as np
import pytest

import nfspec
from nfspec.plan import Init, Parameter
from nfspec.plan.initialise import draw


def test_the_order_of_drawing_does_not_matter():
    parameters = list(nfspec.resolve(nfspec.load("timm/test_nfnet")).parameters.values())
    bits = {p.name: draw(p, 0).tobytes() for p in parameters}
    assert bits == {p.name: draw(p, 0).tobytes() for p in reversed(parameters)}


def test_the_bits_do_not_change_between_releases():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    kernel = draw(plan.parameters["stem.conv0.kernel"], 0)
    digest = hashlib.sha256(kernel.tobytes()).hexdigest()
    assert digest == "8c4c170f801884d8736fd8962c02c4c534aac983df5b8c0136cd03480a4e04f9"


def test_init_is_draw_of_every_parameter_in_order():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    params = nfspec.init(plan, seed=3)
    assert list(params) == list(plan.parameters)
    for name, parameter in plan.parameters.items():
        assert params[name].dtype == np.float32
        assert params[name].shape == parameter.shape
        assert np.array_equal(params[name], draw(parameter, 3))


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (Init("normal", 0.3), 0.3),
        # A normal cut at two standard deviations has 0.87962566 of its standard deviation left.
        (Init("truncated_normal", 0.3), 0.3 * 0.87962566),
        (Init("uniform", 0.3), 0.3 / 3**0.5),
    ],
)
def test_distributions(init, std):
    value = draw(Parameter("x", (200, 500), "kernel", init), 0).astype(np.float64)
    n = value.size
    assert abs(value.mean()) < 6 * std / n**0.5  # six standard errors
    assert abs(value.std() / std - 1) < 6 / (2 * n) ** 0.5
    if init.kind != "normal":
        limit = 2 * 0.3 if init.kind == "truncated_normal" else 0.3
        assert 0.99 * limit < np.abs(value).max() <= np.float32(limit)


def test_constants():
    value = draw(Parameter("x", (), "skip_gain", Init("constant", 0.25)), 0)
    assert value.shape == ()
    assert value == np.float32(0.25)


def test_a_negative_seed_is_refused():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    with pytest.raises(
        nfspec.InputError, match="seed: expected a whole number from 0 on; found -1"
    ):
        nfspec.init(plan, seed=-1)
