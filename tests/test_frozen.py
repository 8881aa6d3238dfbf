"""Frozen objects do not change, and can be hashed, copied and pickled."""

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

import nfspec
from nfspec.errors import Problem, SpecError
from nfspec.frozen import FrozenDict
from nfspec.plan.clipping import clip_rules
from nfspec.plan.counting import count

SPEC = nfspec.load("timm/test_nfnet")
SPEC = SPEC.model_copy(
    update={"agc": SPEC.agc.model_copy(update={"names": {"stem.*": 0.1}, "roles": {"gain": 0.2}})}
)
PLAN = nfspec.resolve(SPEC)
RULES = clip_rules(PLAN)
RECORDS = [
    SPEC, SPEC.stages, SPEC.agc, SPEC.recipe, PLAN, PLAN.blocks[0], PLAN.ops[0], PLAN.taps,
    PLAN.parameters, PLAN.tap_info, PLAN.parameters["head.fc.bias"],
    RULES["head.fc.bias"], count(PLAN, 64), nfspec.recipe(nfspec.resolve(nfspec.load("nfnet-f0"))),
    Problem("a", "b", "c"),
]  # fmt: skip
NAMED = [type(record).__name__ for record in RECORDS]

CHANGES = {
    "set": lambda d: d.__setitem__("a", 1),
    "delete": lambda d: d.__delitem__(next(iter(d))),
    "update": lambda d: d.update(a=1),
    "or": lambda d: d.__ior__({"a": 1}),
    "pop": lambda d: d.pop(next(iter(d))),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("a", 1),
    "clear": lambda d: d.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    "entries",
    [SPEC.agc.names, SPEC.agc.roles, PLAN.agc.names, PLAN.taps, PLAN.parameters, PLAN.tap_info],
    ids=["spec.names", "spec.roles", "plan.names", "taps", "parameters", "tap_info"],
)
def test_entries_of_specs_and_plans_do_not_change(entries, change):
    before = dict(entries)
    with pytest.raises((TypeError, AttributeError)):
        change(entries)
    assert dict(entries) == before


def test_a_plan_keeps_its_taps_whoever_has_the_dict():
    taps = dict(PLAN.taps)
    plan = replace(PLAN, taps=taps)
    taps.clear()
    assert plan.taps == PLAN.taps


@pytest.mark.parametrize("record", RECORDS, ids=NAMED)
def test_records_are_equal_to_their_copies_and_hash_alike(record):
    for other in (
        copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record)),
    ):  # fmt: skip
        assert type(other) is type(record)
        assert other == record and hash(other) == hash(record) and len({other, record}) == 1


def test_equal_specs_and_plans_are_one_key():
    again = nfspec.load("timm/test_nfnet")
    assert len({nfspec.load("timm/test_nfnet"), again}) == 1
    assert len({nfspec.resolve(again), nfspec.resolve(again)}) == 1
    assert len({PLAN, nfspec.resolve(again)}) == 2


def test_what_another_process_pickled_is_the_same_key():
    program = """
import pickle, sys, nfspec
spec = nfspec.load("timm/test_nfnet")
plan = nfspec.resolve(spec)
found = {spec, plan}  # hashed there
plan.parameters, plan.tap_info
sys.stdout.buffer.write(pickle.dumps([spec, plan, nfspec.resolve(nfspec.load("nfnet-f0")).agc]))
"""
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True)
    spec, plan, agc = pickle.loads(done.stdout)
    own = nfspec.load("timm/test_nfnet")
    known = {own, nfspec.resolve(own), nfspec.resolve(nfspec.load("nfnet-f0")).agc}
    assert {spec, plan, agc} == known
    assert plan.parameters == nfspec.resolve(own).parameters and hash(spec) == hash(own)


def test_a_folded_network_keeps_its_parameters_and_is_pickled():
    folded = nfspec.fold(PLAN, nfspec.init(PLAN))
    with pytest.raises(TypeError):
        folded.params.clear()
    plan, params = nfspec.unfold(folded)
    params.clear()
    assert nfspec.unfold(folded)[1] and plan == PLAN
    assert folded in {folded} and folded == folded
    assert pickle.loads(pickle.dumps(folded)).plan == folded.plan


def test_a_spec_error_is_pickled_with_its_problems():
    error = SpecError([Problem("A", "b", "c", "d.toml", 1, 2), Problem("E", "", "f")])
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems and str(again) == str(error)


@pytest.mark.parametrize(
    "table, update, message",
    [
        (SPEC, {"width": "x"}, r"Spec: width: Extra inputs are not permitted; found 'x'"),
        (SPEC.stages, {"width": "x"}, "Stages: width: .* tuple"),
        (SPEC.stages, {"width": (16, -1)}, r"width.1: .* greater than or equal to 1; found -1"),
        (SPEC.stages, {"width": (16, 32.0)}, r"width.1: .* valid integer; found 32.0"),
        (SPEC, {"stem": {"width": 1}}, r"Spec: stem"),
        (SPEC, {"name": ""}, r"Spec: name: .* found ''"),
        (SPEC.recipe or SPEC.agc, {"clipping": float("nan")}, "clipping"),
        (SPEC.agc, {"roles": {"weights": 0.1}}, "roles.weights"),
    ],
)
def test_a_copy_with_other_values_is_checked(table, update, message):
    with pytest.raises(nfspec.InputError, match=message):
        table.model_copy(update=update)


def test_a_copy_with_other_values_is_another_key_and_keeps_where_values_are_from():
    other = SPEC.model_copy(update={"name": "other", "schema_": "nfspec/1"})
    assert other != SPEC and other.name == "other" and other.stages == SPEC.stages
    assert other.origin(("stages", "width")) == SPEC.origin(("stages", "width")) is not None


def test_a_frozen_dict_is_a_dict_to_those_who_read():
    entries = FrozenDict({"a": 1, "b": 2})
    assert entries == {"b": 2, "a": 1} and isinstance(entries, dict)
    assert hash(entries) == hash(FrozenDict({"b": 2, "a": 1}))
    changed = entries.copy()
    changed["c"] = 3
    assert entries | {"c": 3} == changed and "c" not in entries
