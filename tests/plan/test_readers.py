"""Every reader of a plan takes every kind of operation, and stops at one that it does not know."""

import ast
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import nfspec
from nfspec import plan as p
from nfspec import reference
from nfspec.cli.show import _meaning
from nfspec.conformance.cases.target import narrowed
from nfspec.conformance.properties import layers
from nfspec.conformance.subjects.nfspec import _shape
from nfspec.cost.memory import training_memory
from nfspec.cost.roofline import works
from nfspec.design.explorer.operations import drawn
from nfspec.errors import WeightError
from nfspec.plan.clipping import clip_rules
from nfspec.plan.counting import shapes
from nfspec.plan.initialise import draw
from nfspec.rewrites.scalars import move_scalars
from nfspec.weights.deepmind import names as deepmind_names
from nfspec.weights.timm import names as timm_names

from specs import write

ROOT = Path(__file__).parent.parent.parent
KINDS = get_args(p.Operation)
SPEC = """\
schema = "nfspec/1"
name = "every-kind"
source = "a test"
extends = "nfnet-nano"
[stem]
width = [8, 8]
kernel = 3
stride = [2, 1]
pool = "max"
[stages]
depth = [1, 1]
width = [16, 16]
stride = [1, 2]
group_width = 8
attention = ["se", "eca"]
[stochastic_depth]
rate = 0.5
[head]
dropout = 0.2
classes = 3
"""
SIDE = 32


@dataclass(frozen=True)
class Blur(p.Op):
    """A kind that no reader knows."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The plan as it is resolved, and folded, each with its parameters."""
    file = tmp_path_factory.mktemp("specs") / "every-kind.toml"
    write(SPEC, str(file))
    plan = nfspec.resolve(nfspec.load(file))
    params = nfspec.init(plan)
    folded = nfspec.fold(plan, params)
    return {"resolved": (plan, params), "folded": (folded.plan, folded.params)}


def blurred(plan):
    """The plan with an operation of another kind before its classifier."""
    *ops, last = plan.ops
    blur = Blur("blur", last.inputs)
    return replace(plan, ops=(*ops, blur, replace(last, inputs=("blur",))))


def images(plan):
    return np.random.default_rng(0).standard_normal((2, SIDE, SIDE, plan.channels))


def gradients(plan, params):
    return reference.loss_and_gradients(plan, params, images(plan), np.full((2, 3), 1 / 3))


READERS = {
    "taps": lambda plan, params: plan.tap_info,
    "shapes": lambda plan, params: shapes(plan, SIDE, SIDE),
    "counts": lambda plan, params: nfspec.count(plan),
    "show": lambda plan, params: _meaning(nfspec.load("nfnet-nano"), plan, nfspec.count(plan)),
    "explorer": lambda plan, params: drawn(plan),
    "memory": lambda plan, params: training_memory(plan, 2),
    "costs": lambda plan, params: works(plan, 2),
    "reference": lambda plan, params: reference.forward(plan, params, images(plan)),
    "gradients": gradients,
    "scalars": lambda plan, params: move_scalars(plan),
    "folding": nfspec.fold,
}
NAMES = {"DeepMind": deepmind_names, "timm": timm_names}


def test_the_two_plans_have_every_kind(plans):
    assert {type(op) for plan, _ in plans.values() for op in plan.ops} == set(KINDS)


@pytest.mark.parametrize("form", ["resolved", "folded"])
@pytest.mark.parametrize("reader", READERS)
def test_every_kind_is_read(plans, reader, form):
    assert READERS[reader](*plans[form])


@pytest.mark.parametrize("form", ["resolved", "folded"])
@pytest.mark.parametrize("reader", READERS)
def test_a_kind_that_a_reader_does_not_know_stops_it(plans, reader, form):
    plan, params = plans[form]
    with pytest.raises(TypeError, match=r"nfspec|Plan") as stopped:
        READERS[reader](blurred(plan), params)
    assert str(stopped.value).endswith(" does not know the operation Blur (blur)")


@pytest.mark.parametrize("form", ["resolved", "folded"])
def test_all_parameters_have_initial_values_and_a_rule_of_clipping(plans, form):
    plan, params = plans[form]
    assert list(nfspec.init(plan)) == list(clip_rules(plan)) == list(params)


def test_a_distribution_that_is_not_known_is_not_drawn(plans):
    plan, _ = plans["resolved"]
    first = next(iter(plan.parameters.values()))
    with pytest.raises(AssertionError, match="cauchy"):
        draw(replace(first, init=p.Init("cauchy", 1.0)), 0)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_of_weights_are_those_of_networks_that_are_not_folded(plans, names, tmp_path):
    plan, _ = plans["resolved"]
    without_eca = tuple(op for op in plan.ops if not isinstance(op, p.ECA))
    sums = tuple(
        replace(op, skip_gain=True, inputs=tuple(n.removesuffix(".eca") for n in op.inputs))
        if isinstance(op, p.Residual)
        else op
        for op in without_eca
    )
    known = replace(plan, ops=sums)
    assert set(names(known)) == set(known.parameters)
    with pytest.raises(TypeError, match=r"does not know the operation Blur \(blur\)"):
        names(blurred(known))
    with pytest.raises(WeightError, match="is folded"):
        names(plans["folded"][0])


def kit(op):
    """Read an operation as the conformance kit does."""
    narrowed(op)
    _shape(op)
    return layers._features(op)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kit_takes_every_kind_or_says_that_it_has_no_test_of_it(plans, kind):
    op = next(op for plan, _ in plans.values() for op in plan.ops if isinstance(op, kind))
    try:
        assert kit(op)
    except TypeError as refusal:
        assert "tested" in str(refusal) and "does not know" not in str(refusal)


@pytest.mark.parametrize("reader", [narrowed, _shape, layers._features])
def test_a_kind_that_the_kit_does_not_know_stops_it(reader):
    with pytest.raises(TypeError, match=r"does not know the operation Blur \(blur\)"):
        reader(Blur("blur", ("x",)))


def kinds_in(node):
    """Names of the kinds that a match statement has cases for."""
    named = {kind.__name__ for kind in KINDS}
    for part in ast.walk(ast.Module([case.pattern for case in node.cases], [])):
        if isinstance(part, ast.MatchClass):
            name = part.cls.attr if isinstance(part.cls, ast.Attribute) else part.cls.id
            if name in named:
                yield name


def test_every_match_over_kinds_ends_with_a_refusal():
    """A new reader that forgets it is seen here, without a line in `READERS`."""
    seen = 0
    for folder in ("nfspec", "backends", "conformance", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Match) and len(set(kinds_in(node))) > 1:
                    seen += 1
                    last = node.cases[-1]
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    assert isinstance(last.pattern, ast.MatchAs) and not last.pattern.pattern, where
                    assert isinstance(last.body[0], ast.Raise), where
    assert seen > 12
