"""Folded plans against the plans, by the float64 reference: every built-in network, cut."""

import numpy as np
import pytest

import nfspec
from nfspec import folding
from nfspec import plan as p
from nfspec.conformance.reduction import reduced_plan
from nfspec.conformance.trial import trial_params
from nfspec.errors import InputError, WeightError

from specs import HEAD, write

# Folded weights are float32: each is off by 6e-8 at most, relative, and so is each conv's output.
# Some thirty convs follow one another, most of them past a residual sum.
ROUNDED = 30 * 2.0**-24


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def furthest(plan, folded, params):
    x = np.random.default_rng(0).standard_normal((2, 33, 32, plan.channels))
    found = nfspec.reference.forward(folded.plan, params, x)
    wanted = nfspec.reference.forward(plan, folded.original_params, x)
    assert list(found) == list(wanted)
    return max(distance(found[tap], wanted[tap]) for tap in wanted)


@pytest.mark.parametrize("name", nfspec.variants())
def test_same_taps(name):
    plan = reduced_plan(nfspec.load(name))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) < ROUNDED
    kinds = {type(op) for op in folded.plan.ops}
    assert not kinds & {p.WSConv, p.Dropout, p.StochasticDepth}
    assert not any(name.endswith(".gain") for name in folded.params)


def test_without_rounding_nothing_is_left(monkeypatch):
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    monkeypatch.setattr(folding.np, "float32", np.float64)
    params = {k: v.astype(np.float64) for k, v in trial_params(plan, 0).items()}
    monkeypatch.setattr(folding, "check", lambda plan, params: params)
    folded = folding.fold(plan, params)
    assert furthest(plan, folded, folded.params) < 1e-12


def test_drops_are_gone_and_the_original_is_kept():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    params = trial_params(plan, 0)
    folded = nfspec.fold(plan, params)
    original, given = nfspec.unfold(folded)
    assert original is plan
    assert all(given[name] is params[name] for name in params)
    assert folded.plan.digest != plan.digest


def test_skip_gains_of_zero_leave_the_shortcut():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    params = {
        name: np.zeros_like(v) if name.endswith("skip_gain") else v
        for name, v in trial_params(plan, 0).items()
    }
    folded = nfspec.fold(plan, params)
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_beta_before_the_activation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = reduced_plan(nfspec.load(write(f'{HEAD}activation.beta_at = "before"\n')))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_other_parameters_are_refused():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    with pytest.raises(WeightError, match="do not fit"):
        nfspec.fold(plan, {"stem.conv0.kernel": np.zeros((3, 3, 3, 16), np.float32)})
    with pytest.raises(InputError, match="a plan has no parameters"):
        nfspec.fold(plan)
    with pytest.raises(InputError, match="expected what nfspec"):
        nfspec.unfold(plan)
