"""Taps: their operations and shapes, and that every rewrite of a plan keeps them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec import plan as p
from nfspec.cli import app
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.plan.counting import shapes
from nfspec.rewrites.folding import fold
from nfspec.rewrites.scalars import move_scalars, without_features

from representatives import REPRESENTATIVES

EXACT = 1e-12  # float64 rounding of a few hundred operations, as in test_scalars.py
ROUNDED = 30 * 2.0**-24  # folded weights are float32: see test_folding.py
CUT = ("nfnet-f0", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l0")
SIDES = ((32, 32), (33, 47), (64, 31))


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def without_the_tap(plan):
    return replace(plan, taps={tap: at for tap, at in plan.taps.items() if tap != "features"})


@pytest.mark.parametrize("name", nfspec.variants())
def test_features_are_what_is_pooled(name):
    plan = nfspec.resolve(nfspec.load(name))
    (pool,) = (op for op in plan.ops if isinstance(op, p.GlobalPool))
    assert (plan.taps["features"],) == pool.inputs == ("final_act",)
    assert list(plan.tap_info) == list(plan.taps)
    assert plan.tap_info["features"].channels == plan.tap_info["pool"].channels


def test_channels_and_strides_of_nfnet_f0():
    """Figure 2 and Table 1 of the paper: widths 256, 512, 1536, 1536; the image is 32 times as
    wide as the last stage."""
    actual = nfspec.resolve(nfspec.load("nfnet-f0")).tap_info
    assert actual["stem"] == p.Tap(128, 4)
    assert [actual[f"stages.{s}.blocks.0"] for s in range(4)] == [
        p.Tap(256, 4),
        p.Tap(512, 8),
        p.Tap(1536, 16),
        p.Tap(1536, 32),
    ]
    assert actual["features"] == p.Tap(3072, 32)
    assert (actual["pool"], actual["logits"]) == (p.Tap(3072, None), p.Tap(1000, None))


@pytest.mark.parametrize("name", nfspec.variants())
def test_channels_and_strides_are_those_of_the_shapes(name):
    plan = nfspec.resolve(nfspec.load(name))
    for sides in (*SIDES, (224, 321)):
        by_op = shapes(plan, *sides)
        for tap, info in plan.tap_info.items():
            image = () if info.stride is None else tuple(-(-n // info.stride) for n in sides)
            assert by_op[plan.taps[tap]] == (*image, info.channels), (tap, sides)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_networks_without_taps_compute_what_they_did(name):
    """The same operations with the same numbers as where nobody asks for features."""
    plan = reduced_plan(nfspec.load(name))
    plain = without_the_tap(plan)
    assert without_features(move_scalars(plan)) == move_scalars(plain)
    params = trial_params(plan, 0)
    actual, wanted = fold(plan, params), fold(plain, params)
    assert without_features(actual.plan) == wanted.plan
    assert without_features(move_scalars(actual.plan)) == move_scalars(wanted.plan)
    assert list(actual.params) == list(wanted.params)
    assert all(np.array_equal(actual.params[name], y) for name, y in wanted.params.items())


def drawn_taps(plan, rng):
    """Some operations and some of the plan's own taps, in any order, logits among them."""
    names = [op.name for op in plan.ops]
    some = rng.choice(names, int(rng.integers(0, 6)), replace=False)
    taps = [(f"own.{name}", str(name)) for name in some]
    taps += [tap for tap in plan.taps.items() if tap[0] == "logits" or rng.random() < 0.5]
    return {taps[i][0]: taps[i][1] for i in rng.permutation(len(taps))}


@pytest.mark.parametrize("name", CUT)
def test_any_taps_in_any_order_are_kept(name):
    whole = reduced_plan(nfspec.load(name))
    params, rng = trial_params(whole, 0), np.random.default_rng(CUT.index(name))
    x = rng.standard_normal((1, 33, 32, whole.channels))
    for _ in range(6):
        plan = replace(whole, taps=drawn_taps(whole, rng))
        wanted = nfspec.reference.forward(plan, params, x)
        folded = fold(plan, params)
        pairs = (
            (move_scalars(plan), params, EXACT),
            (move_scalars(move_scalars(plan)), params, EXACT),
            (folded.plan, folded.params, ROUNDED),
            (move_scalars(folded.plan), folded.params, ROUNDED),
        )
        for rewritten, values, bound in pairs:
            actual = nfspec.reference.forward(rewritten, values, x)
            assert list(actual) == list(wanted) == list(plan.taps)
            assert list(rewritten.tap_info) == list(plan.taps)
            assert rewritten.tap_info == plan.tap_info
            for tap, y in wanted.items():
                assert distance(actual[tap], y) < bound, tap
                info = plan.tap_info[tap]
                assert y.shape[-1] == info.channels
                assert (y.ndim == 2) == (info.stride is None)
            short = without_features(rewritten)
            left = nfspec.reference.forward(short, values, x)
            assert set(actual) - set(left) <= {"features"}
            for tap, y in left.items():
                assert distance(y, wanted[tap]) < bound, tap


def test_show_lists_the_taps():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    shown = json.loads(CliRunner().invoke(app, ["show", "nfnet-f0", "--json"]).stdout)
    assert list(shown["taps"].items()) == list(plan.taps.items())
    assert shown["tap_info"] == {tap: asdict(info) for tap, info in plan.tap_info.items()}
    assert list(shown["tap_info"]) == list(plan.taps)
