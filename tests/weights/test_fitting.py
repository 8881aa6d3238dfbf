"""Weights of another number of classes or of input channels, made to fit."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import nfspec
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.plan.resolver import resolve
from nfspec.weights import fit

SMALL = {
    ("stem", "width"): (8, 12),
    ("stem", "kernel"): 3,
    ("stem", "stride"): (2, 1),
    ("stages", "depth"): (1,),
    ("stages", "width"): (16,),
    ("stages", "stride"): (2,),
    ("stages", "group_width"): 8,
}
HEAD = ["head.fc.kernel", "head.fc.bias"]
STEM = ["stem.conv0.kernel", "stem.conv0.gain"]


@cache
def plan_of(channels=3, classes=5, rule="max", ddof=0, eps=1e-4, init_std=0.01):
    values = {**SMALL, ("ws", "eps_rule"): rule, ("ws", "ddof"): ddof, ("ws", "eps"): eps}
    values |= {("input", "channels"): channels, ("input", "mean"): (0.5,) * channels}
    values |= {("input", "std"): (0.25,) * channels, ("head", "classes"): classes}
    return resolve(load("nfnet-nano", [given("a test", values | {("head", "init_std"): init_std})]))


def trained(plan):
    """Weights in which no gain is 0."""
    rng = np.random.default_rng(0)
    return {
        name: np.asarray(value + 0.1 * rng.standard_normal(value.shape), np.float32)
        for name, value in nfspec.init(plan).items()
    }


def logits(plan, params, image, channels):
    """Channels of an image are repeated in order."""
    repeated = image[..., np.arange(channels) % image.shape[-1]]
    return nfspec.reference.forward(plan, params, repeated)["logits"]


def assert_alike(old, params, plan, fitted, paired):
    """Logits of both are the same, up to rounding of kernel and gain: 4 roundings of 2^-24 for each
    product, at most 2.5e-7."""
    rng = np.random.default_rng(1)
    for side in ((32, 32), (33, 33), (47, 64), (50, 31)):
        image = rng.standard_normal((2, *side, paired))
        expected = logits(old, params, image, old.channels)
        actual = logits(plan, fitted, image, plan.channels)
        assert np.linalg.norm(actual - expected) <= 2.5e-7 * np.linalg.norm(expected), side


def changed(actual, params):
    return [n for n in actual if n not in params or not np.array_equal(actual[n], params[n])]


# input channels


@pytest.mark.parametrize("eps", [1e-4, 1.0])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std", "none"])
def test_three_channels_to_one_change_nothing_on_grey_images(rule, ddof, eps):
    how = {"rule": rule, "ddof": ddof, "eps": eps}
    old, plan = plan_of(3, **how), plan_of(1, **how)
    params = trained(old)
    fitted = fit(params, plan)
    assert_alike(old, params, plan, fitted.params, paired=1)
    kernel = params["stem.conv0.kernel"].astype(np.float64).sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(fitted.params["stem.conv0.kernel"], kernel.astype(np.float32))
    # A conv that is not standardised has nothing for a gain to keep.
    assert changed(fitted.params, params) == (STEM if rule != "none" else ["stem.conv0.kernel"])
    assert fitted.changes == (
        "stem.conv0: weights for 3 become weights for 1 input channel: kernels are summed, and "
        "gains keep the scale; grey images give the same output",
    )


@pytest.mark.parametrize("rule", ["max", "none"])
@pytest.mark.parametrize("old, new", [(1, 3), (3, 2), (3, 4), (3, 6), (3, 13), (4, 6), (13, 3)])
def test_channels_are_paired_in_order(old, new, rule):
    before, after = plan_of(old, rule=rule), plan_of(new, rule=rule)
    params = trained(before)
    fitted = fit(params, after)
    assert_alike(before, params, after, fitted.params, paired=min(old, new))
    assert changed(fitted.params, params) == (STEM if rule == "max" else STEM[:1])
    assert f"weights for {old} become weights for {new} input channels: " in fitted.changes[0]


@pytest.mark.parametrize("new", [6, 9])
def test_a_multiple_of_the_channels_repeats_the_kernels(new):
    """As timm's rule does, here with gains that keep the scale."""
    params = trained(plan_of(3))
    fitted = fit(params, plan_of(new)).params
    copies = np.tile(params["stem.conv0.kernel"], (1, 1, new // 3, 1)) * np.float32(3 / new)
    np.testing.assert_allclose(fitted["stem.conv0.kernel"], copies, rtol=2**-23)


@pytest.mark.parametrize("classes", [5, 7])
def test_what_is_fitted_fits_as_it_is(classes):
    plan = plan_of(4, classes)
    fitted = fit(trained(plan_of(3)), plan)
    again = fit(fitted.params, plan)
    assert changed(again.params, fitted.params) == []
    assert again.changes == ()


def test_a_channel_that_sums_to_nothing_stays_nothing():
    old, plan = plan_of(3), plan_of(1)
    params = trained(old)
    kernel = params["stem.conv0.kernel"]
    kernel[:, :, 2, 0] = -kernel[:, :, 0, 0] - kernel[:, :, 1, 0]
    actual = fit(params, plan).params
    assert all(np.isfinite(value).all() for value in actual.values())
    assert_alike(old, params, plan, actual, paired=1)


def test_a_kernel_without_a_gain_cannot_keep_its_scale_unless_it_is_not_standardised():
    old, plan = (
        replace(each, ops=tuple(
            replace(op, gain_init=None) if op.name == "stem.conv0" else op for op in each.ops
        ))
        for each in (plan_of(3), plan_of(1))
    )  # fmt: skip
    with pytest.raises(nfspec.WeightError, match=r"stem\.conv0: has no gain \(ws\.gain = false\)"):
        fit(trained(old), plan)


# the classifier


@pytest.mark.parametrize("classes", [1, 7])
def test_a_classifier_of_other_classes_is_drawn_as_init_draws_it(classes):
    params, plan = trained(plan_of(classes=5)), plan_of(classes=classes)
    fitted = fit(params, plan, seed=3)
    assert list(fitted.params) == list(plan.parameters)
    assert changed(fitted.params, params) == HEAD
    fresh = nfspec.init(plan, 3)
    for name in HEAD:
        np.testing.assert_array_equal(fitted.params[name], fresh[name], strict=True)
    counted = "1 class" if classes == 1 else "7 classes"
    assert fitted.changes == (
        f"head.fc: a new classifier of {counted}, drawn from seed 3, in place of one of 5 classes",
    )


def test_a_new_classifier_is_drawn_as_the_spec_says():
    plan = plan_of(classes=500, init_std=0.125)
    params = fit(trained(plan_of()), plan).params
    assert not params["head.fc.bias"].any()
    kernel = params["head.fc.kernel"].astype(np.float64)
    assert abs(kernel.std() / 0.125 - 1) < 6 / (2 * kernel.size) ** 0.5  # six standard errors
    assert not fit(trained(plan_of()), plan_of(classes=9, init_std=0.0)).params[HEAD[0]].any()


def test_the_seed_decides_on_the_new_classifier_alone():
    first, second = (fit(trained(plan_of()), plan_of(1, 9), seed=seed).params for seed in (1, 2))
    assert changed(first, second) == HEAD[:1]


def test_a_missing_classifier_is_drawn():
    plan, params = plan_of(), trained(plan_of())
    body = {name: value for name, value in params.items() if name not in HEAD}
    fitted = fit(body, plan, seed=3)
    assert changed(fitted.params, body) == HEAD
    assert fitted.changes == ("head.fc: a new classifier of 5 classes, drawn from seed 3",)


def test_both_ends_at_once():
    fitted = fit(trained(plan_of(3, 5)), plan_of(1, 7))
    assert len(fitted.changes) == 2
    assert set(changed(fitted.params, trained(plan_of(3, 5)))) == {*STEM, *HEAD}


# what does not fit for another reason


def other(name, value):
    return lambda params: params | {name: value(params[name])}


WRONG = {
    "a shape": (other("stem.conv0.kernel", lambda a: a[:1]), "stem.conv0.kernel: shape"),
    "a gain": (other("stem.conv0.gain", lambda a: a[:3]), "stem.conv0.gain: shape (3,)"),
    "no channels": (other("stem.conv0.kernel", lambda a: a[:, :, :0]), "kernel: shape (3, 3, 0"),
    "dtype": (other("stem.conv0.kernel", lambda a: a.astype("f8")), "float64, expected float32"),
    "features": (other(HEAD[0], lambda a: a[:5]), f"{HEAD[0]}: shape (5, 5)"),
    "half a classifier": (lambda p: {n: p[n] for n in p if n != HEAD[1]}, f"{HEAD[1]}: missing"),
    "two classifiers": (other(HEAD[1], lambda a: a[:3]), f"{HEAD[1]}: shape (3,)"),
    "no classes": (
        lambda p: p | {HEAD[0]: p[HEAD[0]][:, :0], HEAD[1]: p[HEAD[1]][:0]},
        f"{HEAD[1]}: shape (0,)",
    ),
    "more": (lambda p: p | {"more": p[HEAD[1]]}, "more: not in this network"),
    "masked": (other(HEAD[1], np.ma.masked_array), "whose mask would be lost"),
    "no dict": (lambda p: list(p), "expected a dict of arrays, found list"),
}


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(complaint, change, reason, channels):
    message = complaint(fit, change(trained(plan_of(3))), plan_of(channels))
    assert reason in message
    assert "nfspec.weights.fit" not in message


def test_kernels_of_one_weight_are_refused(complaint):
    """No network has them, as standardisation makes zeros of them."""
    values = {**SMALL, ("stem", "kernel"): 1}
    plan = resolve(load("nfnet-nano", [given("a test", values)]))
    one = {name: value[:, :, :1] for name, value in nfspec.init(plan).items() if name == STEM[0]}
    assert "kernels of one weight" in complaint(fit, nfspec.init(plan) | one, plan)


@pytest.mark.parametrize("old", [plan_of(1), plan_of(classes=7), plan_of(1, 7)])
def test_weights_that_fit_can_change_are_refused_with_advice(complaint, old):
    message = complaint(nfspec.weights.check, plan_of(), trained(old))
    assert message.endswith(nfspec.weights.checking.ADVICE)


def test_the_new_weights_share_no_memory_with_the_old():
    params = trained(plan_of())
    fit(params, plan_of(1)).params["stem.conv0.kernel"] += 1
    assert changed(params, trained(plan_of())) == []
