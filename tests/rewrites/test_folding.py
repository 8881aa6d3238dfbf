"""Folded plans against the plans, by the float64 reference: every built-in network, cut."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec import plan as p
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.errors import InputError, WeightError
from nfspec.rewrites import folding

from representatives import REPRESENTATIVES
from specs import HEAD, write

# Folded weights are float32: each is off by 6e-8 at most, relative, and so is each conv's output.
# Some thirty convs follow one another, most of them past a residual sum.
ROUNDED = 30 * 2.0**-24


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def furthest(plan, folded, params):
    x = np.random.default_rng(0).standard_normal((2, 33, 32, plan.channels))
    actual = nfspec.reference.forward(folded.plan, params, x)
    wanted = nfspec.reference.forward(plan, folded.original_params, x)
    assert list(actual) == list(wanted)
    return max(distance(actual[tap], wanted[tap]) for tap in wanted)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_same_taps(name):
    plan = reduced_plan(nfspec.load(name))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) < ROUNDED
    kinds = {type(op) for op in folded.plan.ops}
    assert not kinds & {p.WSConv, p.Dropout, p.StochasticDepth}
    assert not any(name.endswith(".gain") for name in folded.params)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_without_rounding_nothing_is_left(name, monkeypatch):
    plan = reduced_plan(nfspec.load(name))
    monkeypatch.setattr(folding.np, "float32", np.float64)
    params = {k: v.astype(np.float64) for k, v in trial_params(plan, 0).items()}
    monkeypatch.setattr(folding, "check", lambda plan, params: params)
    folded = folding.fold(plan, params)
    assert furthest(plan, folded, folded.params) < 1e-12


def test_the_bound_sees_a_scale_that_is_lost(monkeypatch):
    """A tenth of a percent of every kernel's."""
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    exact = folding.standardise
    monkeypatch.setattr(folding, "standardise", lambda *args: 1.001 * exact(*args))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) > 100 * ROUNDED


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "timm/eca_nfnet_l0", "nf-resnet-50"])
def test_kernels_are_rounded_once(name):
    """Each is the float64 one to the nearest float32."""
    plan = reduced_plan(nfspec.load(name))
    params = trial_params(plan, 0)
    folded = nfspec.fold(plan, params)
    scaled = {op.inputs[0] for op in folded.plan.ops if isinstance(op, p.Residual)}
    convs = [op for op in folding.move_scalars(plan).ops if isinstance(op, p.WSConv)]
    seen = 0
    for op in convs:
        if op.name in scaled:  # alpha and skip gain are in these
            continue
        kernel, gain = (params[f"{op.name}.{n}"].astype(np.float64) for n in ("kernel", "gain"))
        exact = folding.standardise(op, kernel, gain)
        np.testing.assert_array_equal(folded.params[f"{op.name}.kernel"], np.float32(exact))
        seen += 1
    assert seen


def test_drops_are_gone_and_the_original_is_kept():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    params = trial_params(plan, 0)
    folded = nfspec.fold(plan, params)
    original, given = nfspec.unfold(folded)
    assert original is plan
    assert list(given) == list(params)
    assert all(given[name] is params[name] for name in params)
    assert folded.plan.digest != plan.digest


def test_what_drops_is_gone():
    plan = reduced_plan(nfspec.load("nfnet-f0"), drops=True)
    drops = (p.Dropout, p.StochasticDepth)
    assert any(isinstance(op, drops) and op.rate > 0 for op in plan.ops)
    folded = nfspec.fold(plan, nfspec.init(plan))
    assert not any(isinstance(op, drops) for op in folded.plan.ops)
    names = {op.name for op in folded.plan.ops} | {p.INPUT}
    assert all(name in names for op in folded.plan.ops for name in op.inputs)
    assert set(folded.plan.taps.values()) <= names
    assert list(folded.plan.taps) == list(plan.taps)


def test_parameters_are_the_folded_plans_and_float32():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert list(folded.params) == list(folded.plan.parameters)
    for name, parameter in folded.plan.parameters.items():
        assert folded.params[name].shape == parameter.shape
        assert folded.params[name].dtype == np.float32


def test_digests_are_one_for_each_plan():
    plans = [reduced_plan(nfspec.load(name)) for name in ("nfnet-f0", "nfnet-f0", "nfnet-f1")]
    actual = [nfspec.fold(plan, trial_params(plan, 0)).plan.digest for plan in plans]
    assert actual[0] == actual[1] and len(actual[0]) == 64
    assert len({*actual, *(plan.digest for plan in plans)}) == 2 * len({q.digest for q in plans})


def test_given_parameters_are_not_changed():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    params = trial_params(plan, 0)
    before = {name: value.copy() for name, value in params.items()}
    nfspec.fold(plan, params)
    for name, value in before.items():
        np.testing.assert_array_equal(params[name], value)


def test_a_folded_plan_can_be_folded():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    once = nfspec.fold(plan, trial_params(plan, 0))
    twice = nfspec.fold(once.plan, once.params)
    assert furthest(once.plan, twice, twice.params) == 0.0
    assert nfspec.unfold(twice)[0] is once.plan


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-resnet-50"])
def test_skip_gains_of_zero_leave_the_shortcut(name):
    """With attention and without, where the last conv of a branch becomes zero."""
    plan = reduced_plan(nfspec.load(name))
    params = {
        name: np.zeros_like(v) if name.endswith("skip_gain") else v
        for name, v in trial_params(plan, 0).items()
    }
    folded = nfspec.fold(plan, params)
    assert furthest(plan, folded, folded.params) < ROUNDED
    for op in folded.plan.ops:
        if isinstance(op, p.Residual) and not op.skip_gain:
            assert not folded.params[f"{op.inputs[0]}.kernel"].any()
            assert not folded.params[f"{op.inputs[0]}.bias"].any()
        elif isinstance(op, p.Residual):
            assert folded.params[op.parameters[0].name] == 0.0


def test_beta_before_the_activation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = reduced_plan(nfspec.load(write(f'{HEAD}activation.beta_at = "before"\n')))
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) < ROUNDED
    kept = {op.name: op for op in folded.plan.ops if isinstance(op, p.Activation)}
    betas = {op.name: op.beta for op in plan.ops if isinstance(op, p.Activation) and op.beta != 1.0}
    assert betas and betas == {name: kept[name].beta for name in betas}


def folded_with(plan, name, inputs):
    """A plan in which an operation reads others, and what it is folded to."""
    ops = [replace(op, inputs=inputs) if op.name == name else op for op in plan.ops]
    plan = replace(plan, ops=tuple(ops))
    return plan, nfspec.fold(plan, trial_params(plan, 0))


def test_an_activation_with_two_readers_belongs_to_its_conv():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    block = plan.blocks[0].name
    shared = f"{block}.act1"
    conv = next(op for op in plan.ops if op.name == shared).inputs[0]
    plan, folded = folded_with(plan, f"{block}.conv2", (shared,))
    readers = [op.name for op in plan.ops if shared in op.inputs]
    assert len(readers) == 2
    ops = {op.name: op for op in folded.plan.ops}
    assert shared not in ops
    assert ops[conv].activation == "relu"
    assert all(ops[name].inputs == (conv,) for name in readers)
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_a_conv_with_two_readers_keeps_its_activation_apart():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    block = plan.blocks[0].name
    act, conv = f"{block}.act1", f"{block}.conv0"
    plan, folded = folded_with(plan, f"{block}.conv2", (conv,))
    ops = {op.name: op for op in folded.plan.ops}
    assert ops[conv].activation == "identity"
    assert ops[act].inputs == (conv,)
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_a_tapped_conv_keeps_its_activation_apart():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    conv = f"{plan.blocks[0].name}.conv0"
    plan = replace(plan, taps={**plan.taps, "inner": conv})
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert {op.name: op for op in folded.plan.ops}[conv].activation == "identity"
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_a_tapped_conv_at_the_end_of_a_branch_is_not_scaled():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    first = next(op for op in plan.ops if isinstance(op, p.Residual))
    plan = replace(plan, taps={**plan.taps, "branch": first.inputs[0]})
    folded = nfspec.fold(plan, trial_params(plan, 0))
    sums = [op for op in folded.plan.ops if isinstance(op, p.Residual)]
    assert [op.skip_gain for op in sums] == [True] + [False] * (len(sums) - 1)
    assert furthest(plan, folded, folded.params) < ROUNDED


def with_another_activation(kind):
    """A plan with an activation more behind that of its first bottleneck; its name."""
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    act, second = f"{plan.blocks[0].name}.act1", "second"
    ops = []
    for op in plan.ops:
        op = replace(op, inputs=tuple(second if name == act else name for name in op.inputs))
        if op.name == act:
            op = replace(op, gamma=1.0)  # so that nothing else keeps it apart
            ops += [op, p.Activation(second, (act,), kind, 0.01, 1.0, 1.0, "after")]
        else:
            ops.append(op)
    return replace(plan, ops=tuple(ops)), second


def test_a_conv_takes_one_activation():
    plan, second = with_another_activation("tanh")
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert second in {op.name for op in folded.plan.ops}
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_a_tapped_activation_at_the_end_of_a_branch_is_not_scaled():
    plan = reduced_plan(nfspec.load("nf-resnet-50"))
    first = next(op for op in plan.ops if isinstance(op, p.Residual))
    ops = []
    for op in plan.ops:
        if op is first:
            ops.append(p.Activation("end", op.inputs[:1], "identity", 0.01, 1.0, 1.0, "after"))
            op = replace(op, inputs=("end", op.inputs[1]))
        ops.append(op)
    plan = replace(plan, ops=tuple(ops), taps={**plan.taps, "end": "end"})
    folded = nfspec.fold(plan, trial_params(plan, 0))
    assert furthest(plan, folded, folded.params) < ROUNDED


def test_other_parameters_are_refused():
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    params = trial_params(plan, 0)
    with pytest.raises(WeightError, match="do not fit"):
        nfspec.fold(plan, {"stem.conv0.kernel": np.zeros((3, 3, 3, 16), np.float32)})
    with pytest.raises(WeightError, match=r"head\.fc\.bias"):
        nfspec.fold(plan, {**params, "head.fc.bias": params["head.fc.bias"][:-1]})
    folded = nfspec.fold(plan, params)
    with pytest.raises(WeightError, match="do not fit"):
        nfspec.fold(plan, folded.params)
    with pytest.raises(InputError, match=r"a plan has no parameters; give them: fold\(plan, "):
        nfspec.fold(plan)
    with pytest.raises(InputError, match="a model has parameters of its own; give the model alone"):
        nfspec.fold(object(), params)


@pytest.mark.parametrize("other", [None, {}, "plan"])
def test_only_what_was_folded_is_unfolded(other):
    plan = reduced_plan(nfspec.load("nfnet-f0"))
    actual = plan if other == "plan" else other
    message = f"expected what nfspec.fold returned; found {type(actual).__name__}"
    with pytest.raises(InputError, match=message):
        nfspec.unfold(actual)
