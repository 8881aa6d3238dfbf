"""Weights of RGB networks for one channel, on grey images in three equal channels."""

from functools import cache

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec import weights
from nfspec.cli import app
from nfspec.language.loader import given, load
from nfspec.plan.resolver import resolve

SMALL = {
    ("stem", "width"): (8, 12),
    ("stem", "kernel"): 3,
    ("stem", "stride"): (2, 1),
    ("stages", "depth"): (1,),
    ("stages", "width"): (16,),
    ("stages", "stride"): (2,),
    ("stages", "group_width"): 8,
    ("head", "classes"): 5,
}
INPUTS = {1: {"mean": (0.5,), "std": (0.25,)}, 3: {"mean": (0.5,) * 3, "std": (0.25,) * 3}}


@cache
def plan_of(channels, rule, ddof, eps=1e-4):
    values = {**SMALL, ("ws", "eps_rule"): rule, ("ws", "ddof"): ddof, ("ws", "eps"): eps}
    values |= {("input", "channels"): channels}
    values |= {("input", name): value for name, value in INPUTS[channels].items()}
    return resolve(load("nfnet-nano", [given("a test", values)]))


def trained(plan):
    """Weights in which no gain is 0."""
    rng = np.random.default_rng(0)
    return {
        name: np.asarray(value + 0.1 * rng.standard_normal(value.shape), np.float32)
        for name, value in nfspec.init(plan).items()
    }


@pytest.mark.parametrize("eps", [1e-4, 1.0])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_logits_are_the_same_on_grey_images(rule, ddof, eps):
    """Up to rounding of kernel and gain: 4 roundings of 2^-24 for each product, at most 2.5e-7."""
    plan, grey = plan_of(3, rule, ddof, eps), plan_of(1, rule, ddof, eps)
    params = trained(plan)
    actual = nfspec.to_grey(plan, params, grey)
    rng = np.random.default_rng(1)
    for side in ((32, 32), (33, 33), (47, 64), (50, 31)):
        image = rng.standard_normal((2, *side, 1))
        expected = nfspec.reference.forward(plan, params, np.repeat(image, 3, axis=3))["logits"]
        logits = nfspec.reference.forward(grey, actual, image)["logits"]
        assert np.linalg.norm(logits - expected) <= 2.5e-7 * np.linalg.norm(expected)
    kernel = params["stem.conv0.kernel"].astype(np.float64).sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(actual["stem.conv0.kernel"], kernel.astype(np.float32))
    same = [name for name in actual if np.array_equal(actual[name], params[name])]
    assert [n for n in actual if n not in same] == ["stem.conv0.kernel", "stem.conv0.gain"]


def test_a_channel_that_sums_to_nothing_stays_nothing():
    plan, grey = plan_of(3, "max", 0), plan_of(1, "max", 0)
    params = trained(plan)
    kernel = params["stem.conv0.kernel"]
    kernel[:, :, 2, 0] = -kernel[:, :, 0, 0] - kernel[:, :, 1, 0]
    actual = nfspec.to_grey(plan, params, grey)
    assert all(np.isfinite(value).all() for value in actual.values())
    image = np.random.default_rng(1).standard_normal((1, 32, 32, 1))
    expected = nfspec.reference.forward(plan, params, np.repeat(image, 3, axis=3))["logits"]
    logits = nfspec.reference.forward(grey, actual, image)["logits"]
    assert np.linalg.norm(logits - expected) <= 2.5e-7 * np.linalg.norm(expected)


def test_other_differences_are_refused():
    plan = plan_of(3, "max", 0)
    for other in (plan, plan_of(1, "add", 0)):
        with pytest.raises(nfspec.WeightError, match=r"differ in more than input\.channels"):
            nfspec.to_grey(plan, trained(plan), other)


SPEC = """
schema = "nfspec/1"
name = "grey"
source = "a test"
extends = "timm/test_nfnet"
[input]
channels = 1
mean = [0.5]
std = [0.25]
"""


def test_convert_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.toml").write_text(SPEC)
    colour, grey = resolve(load("timm/test_nfnet")), resolve(load("grey.toml"))
    params = trained(colour)
    weights.to_timm_file("rgb.pth", colour, params)
    arguments = ["convert", "rgb.pth", "out.safetensors", "--grey", "--variant"]
    result = CliRunner().invoke(app, [*arguments, "grey.toml"])
    assert (result.exit_code, result.stderr) == (0, "")
    expected = nfspec.to_grey(colour, params, grey)
    actual = weights.load("out.safetensors", grey)
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    result = CliRunner().invoke(app, [*arguments, "timm/test_nfnet", "--force"])
    assert result.exit_code == 2
    assert result.stderr == "--grey: timm/test_nfnet has 3 channels, not one\n"
