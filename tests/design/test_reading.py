"""The sentence on networks without a fault, and on those with one of twenty."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec.design.reading import read
from nfspec.plan import Pool, Residual, WSConv

RELU = {
    "input.train": 32,
    "stages.depth": [2, 3],
    "stages.width": [64, 96],
    "stages.stride": [1, 2],
    "stem.width": [32],
    "stages.alpha": 0.5,
}
GELU = {"stages.depth": [1, 2], "stages.width": [64, 96], "stages.stride": [1, 2]}
CONV = "stages.1.blocks.1.conv1"


def drawn(parent, changes):
    base = RELU if parent == "nf-resnet-50" else GELU
    plan = nfspec.resolve(nfspec.load(parent, {**base, **changes}))
    return plan, nfspec.signal.with_skip_gain(plan, nfspec.init(plan), 1.0)


def reading(plan, params, scale=1.0):
    images = scale * nfspec.signal.noise(plan, 4, 32)
    return read(nfspec.signal.measure(plan, params, images), params)


# Changes of the spec, which a designer makes.
OF_SPECS = {
    "gamma is missing": ({"activation.gamma": 1.0}, "gamma is missing: relu needs 1.713"),
    "gamma of another activation": (
        {"activation.kind": "silu", "activation.gamma": 1.7139},
        "gamma is 1.714: silu needs 1.787",
    ),
    "gamma twice": ({"activation.gamma": 2.9374}, "gamma is 2.937: relu needs 1.713"),
    "gamma before convs that are not standardised": (
        {"ws.eps_rule": ["max", "none"]},
        "gamma is 1.714: relu before a conv that is not standardised needs 1.414, so that each "
        "activation with the conv after it makes 1.47 times the variance (10 convs)",
    ),
    "gamma at the weights, missing": (
        {"activation.gamma_at": "weight", "activation.gamma": 1.0},
        "gamma is missing: relu",
    ),
    "gamma on a stem that no activation comes before": (
        {"activation.gamma_at": "weight"},
        "stem.conv0: multiplied by gamma, 1.714, though no activation",
    ),
    "beta is missing": (
        {"stages.beta": 1.0},
        "stage 0: beta is wrong in 1 of its blocks: stages.0.blocks.1 has 1, and the variance of "
        "its input, 1.25",
    ),
    "beta of one stage": (
        {"stages.beta": [[1.0, 0.8944], [0.8165, 0.5, 0.8165]]},
        "stage 1: beta is wrong in 1 of its blocks: stages.1.blocks.1 has 0.5",
    ),
    "alpha is 0": ({"stages.alpha": [0.5, 0.0]}, "alpha is 0 in stage 1"),
    "no reset: identity": (
        {"stages.width": [64, 64], "stages.stride": [1, 1], "stages.depth": [3, 3]},
        "stage 1 is not reset: the shortcut of stages.1.blocks.0 is its input",
    ),
    "no reset: raw shortcut": (
        {"block.shortcut_input": "raw"},
        "stage 1 is not reset: the shortcut conv of stages.1.blocks.0 reads its input as it is",
    ),
}


def gain(params):
    params[f"{CONV}.gain"] *= 0.5


def bias(params):
    params[f"{CONV}.bias"] += 1.0


def alike(params):
    params[f"{CONV}.kernel"][:] = 0.02 + 1e-6 * params[f"{CONV}.kernel"]


def silent(params):
    params[f"{CONV}.gain"][:] = 0.0


def skip_gain(params):
    params["stages.1.blocks.0.skip_gain"] = np.float32(3.0)


def not_finite(params):
    params[f"{CONV}.kernel"][0, 0, 0, 0] = np.nan


# Changes of the weights.
OF_WEIGHTS = {
    gain: f"{CONV}: makes 0.25",
    bias: f"{CONV}: makes ",
    alike: f"no signal passes {CONV}: weight standardisation leaves",
    silent: f"no signal passes {CONV}",
    skip_gain: "stages.1.blocks.0: its skip gain is 3, and that of the others 1",
    not_finite: f"{CONV}: its output is not finite",
}


@pytest.mark.parametrize("name", OF_SPECS)
def test_a_fault_of_a_spec_is_named(name):
    changes, sentence = OF_SPECS[name]
    found = reading(*drawn("nf-resnet-50", changes))
    assert not found.as_expected
    assert found.sentence.startswith(sentence), found


@pytest.mark.parametrize("change", OF_WEIGHTS, ids=lambda change: change.__name__)
def test_a_fault_of_weights_is_named(change):
    plan, params = drawn("nf-resnet-50", {})
    params = {name: value.copy() for name, value in params.items()}
    change(params)
    found = reading(plan, params)
    assert not found.as_expected
    assert found.sentence.startswith(OF_WEIGHTS[change]), found


def test_a_wrong_factor_of_one_branch_is_named():
    plan, params = drawn("nf-resnet-50", {})
    ops = tuple(
        replace(op, alpha=1.0) if isinstance(op, Residual) and op.block == "stages.1.blocks.1"
        else op
        for op in plan.ops
    )  # fmt: skip
    found = reading(replace(plan, ops=ops), params)
    assert found.sentence.startswith(
        "stages.1.blocks.1: adds its branch times 1, where alpha is 0.5"
    )


def test_attention_that_halves_its_branches_is_named():
    found = reading(*drawn("nfnet-nano", {"attention.gain": 1.0}))
    assert found.sentence.startswith(
        "attention.gain is 1: a gate is a half on average, and needs 2"
    )


def test_images_that_are_not_normalised_are_named():
    found = reading(*drawn("nf-resnet-50", {}), scale=50.0)
    assert found.sentence.startswith("the images are not normalised: their mean square is 2.49e+03")


def test_an_eps_that_takes_the_variance_is_told():
    found = reading(*drawn("nf-resnet-50", {"ws.eps": 0.1, "ws.eps_rule": "add"}))
    assert any(text.startswith("eps of weight standardisation") for text in found.notes)


def test_a_network_without_a_fault_grows_as_expected():
    found = reading(*drawn("nf-resnet-50", {}))
    assert found.as_expected
    assert found.sentence.startswith("variance grows by 0.25 a block and is reset at each stage")


def test_average_pools_on_noise_are_explained():
    """The mean of four independent numbers has a quarter of their variance."""
    plan, params = drawn("nfnet-nano", {})
    signal = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 8, 32))
    (kept,) = signal.pools.values()
    assert kept == pytest.approx(0.25, abs=0.02)
    assert any("leaves 0.2" in text and "a quarter" in text for text in read(signal, params).notes)
    smooth = np.repeat(np.repeat(nfspec.signal.noise(plan, 8, 4), 8, axis=1), 8, axis=2)
    (kept,) = nfspec.signal.measure(plan, params, smooth).pools.values()
    assert kept > 0.4


def test_skip_gains_of_0_are_as_expected():
    plan, params = drawn("nf-resnet-50", {})
    found = reading(plan, nfspec.signal.with_skip_gain(plan, params, 0.0))
    assert found.as_expected and found.sentence.startswith("skip gains are 0")


@pytest.mark.parametrize("trained, folded", [(True, False), (False, True)])
def test_of_trained_and_folded_networks_the_range_is_told(trained, folded):
    plan, params = drawn("nf-resnet-50", {})
    signal = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 1, 32), folded=folded)
    found = read(signal, params, trained)
    assert found.as_expected and found.sentence.startswith("mean square runs from ")


def test_depthwise_convs_keep_the_variance():
    found = reading(*drawn("nf-resnet-50", {"stages.group_width": 1}))
    assert found.as_expected, found


def test_convs_behind_a_pool_have_their_activations():
    """All convs but the first and the final one read an activation, one shortcut by a pool."""
    plan, params = drawn("nfnet-nano", {"activation.gamma": 1.0})
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    assert sum(isinstance(op, Pool) for op in plan.ops) == 1
    assert f"({len(convs) - 2} convs)" in reading(plan, params).sentence


@pytest.mark.parametrize(
    "rule, start", [("none", "the convs are"), (["none", "max"], "8 of 18 convs are"), ("max", "")]
)
def test_means_that_convs_pass_on_are_told(rule, start):
    plan, params = drawn("nf-resnet-50", {"ws.eps_rule": rule, "activation.gamma": 2.0**0.5})
    found = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 4, 32))
    # Faults of gamma, where some convs are standardised, leave the notes.
    told = [each for each in read(found, params).notes if "pass the mean of their inputs" in each]
    assert len(told) == bool(start)
    if start:
        row = max(found.signals, key=lambda each: each.avg_sq_mean / each.avg_var)
        share = row.avg_sq_mean / (row.avg_sq_mean + row.avg_var)
        assert told[0].startswith(f"{start} not standardised, and")
        assert f"are {share:.0%} of the mean square in {row.tap}, " in told[0]


def test_kernels_of_the_right_variance_need_no_standardisation():
    """He's: twice the variance before a relu, where gamma is 1."""
    changes = {"ws.eps_rule": "none", "conv.init_scale": 2.0, "activation.gamma": 1.0}
    found = reading(*drawn("nf-resnet-50", changes))
    assert not any(
        "gamma" in text or "eps of weight" in text for text in found.faults + found.notes
    )
