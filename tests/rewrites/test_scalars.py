"""The rewritten plan against the plan in float64: every built-in network, cut to few blocks."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec import plan as p
from nfspec.conformance.cases.reduction import CLASSES, reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.reference.gradients import loss_and_gradients
from nfspec.rewrites.scalars import move_scalars, without_features

from representatives import REPRESENTATIVES
from specs import HEAD, write

# Float64 rounding, 1.1e-16 relative, of a few hundred operations that do not amplify it much.
BOUND = 1e-12

BEFORE = f'{HEAD}activation.beta_at = "before"\nactivation.kind = "silu"\n'


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def images(plan, n=2):
    return np.random.default_rng(0).standard_normal((n, 33, 32, plan.channels))


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_same_taps(name):
    plan = reduced_plan(nfspec.load(name))
    params, x = trial_params(plan, 0), images(plan)
    actual = nfspec.reference.forward(move_scalars(plan), params, x)
    wanted = nfspec.reference.forward(plan, params, x)
    assert max(distance(actual[tap], wanted[tap]) for tap in plan.taps) < BOUND


def test_the_representatives_are_all_that_cut_networks_differ_in():
    def cut(name):
        plan = reduced_plan(nfspec.load(name))
        return plan.ops, tuple(plan.taps.items()), plan.channels

    kept = {cut(name): name for name in REPRESENTATIVES}
    assert len(kept) == len(REPRESENTATIVES)
    assert [name for name in nfspec.variants() if cut(name) not in kept] == []


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "timm/eca_nfnet_l0", "nf-resnet-50"])
def test_same_gradients(name):
    plan = reduced_plan(nfspec.load(name))
    params, x = trial_params(plan, 0), images(plan)
    targets = np.full((2, CLASSES), 1.0 / CLASSES)
    actual = loss_and_gradients(move_scalars(plan), params, x, targets)
    wanted = loss_and_gradients(plan, params, x, targets)
    assert actual.loss == pytest.approx(wanted.loss, rel=BOUND)
    for key, value in wanted.of_parameters.items():
        assert distance(actual.of_parameters[key], value) < 10 * BOUND, key


def test_beta_before_the_activation_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = reduced_plan(nfspec.load(write(BEFORE)))
    moved = move_scalars(plan)
    params, x = trial_params(plan, 0), images(plan)
    wanted = nfspec.reference.forward(plan, params, x)["logits"]
    assert distance(nfspec.reference.forward(moved, params, x)["logits"], wanted) < BOUND
    by_name = {op.name: op for op in moved.ops}
    betas = [(op.beta, by_name[op.name].beta) for op in plan.ops if isinstance(op, p.Activation)]
    assert all(a == b for a, b in betas) and any(a != 1.0 for a, _ in betas)


def test_no_scalar_is_left_on_an_activation():
    for op in without_features(move_scalars(nfspec.resolve(nfspec.load("nfnet-f0")))).ops:
        if isinstance(op, p.Activation):
            assert op.gamma * op.beta == 1.0
        if isinstance(op, p.SqueezeExcite):
            assert op.gate_only
        if isinstance(op, p.Residual):
            assert len(op.inputs) == 3


def test_parameters_are_those_of_the_plan():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    assert move_scalars(plan).parameters == plan.parameters


def test_a_tap_is_not_changed():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    name = plan.blocks[0].name
    tapped = replace(plan, taps={**plan.taps, "act": f"{name}.act0"})
    assert [op for op in move_scalars(tapped).ops if op.name == f"{name}.act0"] == [
        op for op in plan.ops if op.name == f"{name}.act0"
    ]


def test_an_activation_that_something_else_reads_keeps_its_scale():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    first = next(op for op in plan.ops if isinstance(op, p.Residual))
    ops = [
        replace(o, inputs=(o.inputs[0], f"{o.block}.act0")) if o is first else o for o in plan.ops
    ]
    moved = {op.name: op for op in move_scalars(replace(plan, ops=tuple(ops))).ops}
    kept = moved[f"{first.block}.act0"]
    assert kept.gamma != 1.0 and moved[f"{first.block}.act1"].gamma == 1.0
