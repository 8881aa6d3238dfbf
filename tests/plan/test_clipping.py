"""Rules of clipping: the elements that share a norm, and the lambda of a parameter."""

import math

import numpy as np
import pytest

import nfspec
from nfspec.language.tables import AGC
from nfspec.plan.clipping import ClipRule, clip_rule, clip_rules, rules_for

ALL, EACH = None, ()

# Unit rule: role and shape to the axes of a norm. DeepMind's squeezes before it looks at the rank
# (deepmind-research/nfnets/optim.py, unitwise_norm); timm's norm is over all dimensions but the
# first of OIHW kernels, OI dense kernels and (O, 1, 1, 1) gains (timm/utils/agc.py).
AXES = {
    "squeeze": {
        ("skip_gain", ()): ALL,
        ("gain", (6,)): ALL,
        ("bias", (6,)): ALL,
        ("bias", (1,)): ALL,
        ("kernel", (5,)): ALL,
        ("kernel", (7, 4)): (0,),
        ("head", (7, 4)): (0,),
        ("kernel", (1, 4)): ALL,
        ("kernel", (7, 1)): ALL,
        ("kernel", (2, 3, 4)): (0,),
        ("kernel", (3, 3, 4, 6)): (0, 1, 2),
        ("kernel", (1, 1, 4, 6)): (0, 1, 2),
        ("kernel", (1, 1, 1, 6)): ALL,
        ("kernel", (3, 1, 1, 1)): ALL,
        ("kernel", (2, 3, 1, 2, 4)): (0, 1, 2, 3),
    },
    "timm": {
        ("skip_gain", ()): ALL,
        ("gain", (6,)): EACH,
        ("bias", (6,)): ALL,
        ("kernel", (5,)): ALL,
        ("kernel", (7, 4)): (0,),
        ("head", (1, 4)): (0,),
        ("kernel", (2, 3, 4)): (0, 1),
        ("kernel", (3, 3, 4, 6)): (0, 1, 2),
        ("kernel", (1, 1, 1, 6)): (0, 1, 2),
        ("kernel", (2, 3, 1, 2, 4)): (0, 1, 2, 3),
    },
    "output": {
        ("skip_gain", ()): ALL,
        ("gain", (6,)): ALL,
        ("bias", (6,)): ALL,
        ("kernel", (5,)): ALL,
        ("kernel", (7, 4)): (0,),
        ("kernel", (1, 4)): (0,),
        ("kernel", (2, 3, 4)): (0, 1),
        ("kernel", (1, 1, 1, 6)): (0, 1, 2),
        ("kernel", (3, 1, 1, 1)): (0, 1, 2),
    },
    "element": {
        ("skip_gain", ()): ALL,
        ("gain", (6,)): EACH,
        ("bias", (6,)): EACH,
        ("kernel", (5,)): EACH,
        ("kernel", (7, 4)): (0,),
        ("kernel", (1, 1, 1, 6)): (0, 1, 2),
    },
    "tensor": {
        ("skip_gain", ()): ALL,
        ("gain", (6,)): ALL,
        ("kernel", (7, 4)): ALL,
        ("kernel", (3, 3, 4, 6)): ALL,
    },
}


def table(**changes):
    given = {"enabled": True, "clipping": 0.01, "eps": 1e-3, "unit": "squeeze"}
    return AGC(**{**given, "exclude": (), "roles": {}, "names": {}, **changes})


@pytest.mark.parametrize("unit", AXES)
def test_axes_and_number_of_units(unit):
    for (role, shape), axes in AXES[unit].items():
        rule = clip_rule(table(unit=unit), "x", role, shape)
        assert rule.axes == axes, (role, shape)
        units = {ALL: 1, EACH: math.prod(shape)}.get(axes) or shape[-1]
        if unit == "squeeze" and len(shape) == 3:
            units = shape[1] * shape[2]
        assert rule.units == units, (role, shape)


def test_lambda_comes_from_exclude_then_the_longest_name_then_the_role_then_the_table():
    agc = table(
        exclude=("head.*.kernel", "stem.conv1.kernel"),
        names={
            "stem.*": 0.5,
            "*.conv0.kernel": 0.25,
            "*": 0.125,
            "head.fc.kernel": 9.0,
        },
        roles={"gain": 0.75, "head": 9.0},
    )
    actual = {
        name: clip_rule(agc, name, role, (2,)).clipping
        for name, role in {
            "head.fc.kernel": "head",  # excluded, whatever its name and role have
            "stem.conv1.kernel": "kernel",
            "stem.conv0.kernel": "kernel",
            "stem.conv0.gain": "gain",
            "final_conv.bias": "bias",
        }.items()
    }
    assert actual == {
        "head.fc.kernel": None,
        "stem.conv1.kernel": None,
        "stem.conv0.kernel": 0.25,
        "stem.conv0.gain": 0.5,
        "final_conv.bias": 0.125,
    }
    by_role = table(roles={"gain": 0.75})
    assert clip_rule(by_role, "a.gain", "gain", (2,)).clipping == 0.75
    assert clip_rule(by_role, "a.bias", "bias", (2,)).clipping == 0.01


@pytest.mark.parametrize("pattern", ["a.g?in", "a.[g]ain", "a.gai", ".gain", "A.*"])
def test_in_a_pattern_all_but_the_star_stands_for_itself(pattern):
    for agc in (table(exclude=(pattern,)), table(names={pattern: 9.0})):
        assert clip_rule(agc, "a.gain", "gain", (2,)).clipping == 0.01
        assert clip_rule(agc, pattern, "gain", (2,)).clipping != 0.01


def test_limits_by_hand():
    """lambda times the norm of the parameter, or times eps where that is larger."""
    rule = ClipRule(None, 1, 0.5, 0.25)
    np.testing.assert_array_equal(rule.limits(np.array([0.0, 0.25, 2.0])), [0.125, 0.125, 1.0])


def test_nothing_is_clipped_where_clipping_is_off():
    agc = table(enabled=False, roles={"gain": 0.5}, names={"*": 0.5})
    assert clip_rule(agc, "a.gain", "gain", (2,)).clipping is None


# timm's own rule leaves out the last two tensors; `clip_rules` by name comes to the same.
LEFT_OUT = {
    "nfnet-f0": {"head.fc.kernel"},
    "timm/dm_nfnet_f0": {"head.fc.kernel", "head.fc.bias"},
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out(name):
    rules = clip_rules(nfspec.resolve(nfspec.load(name)))
    assert {name for name, rule in rules.items() if rule.clipping is None} == LEFT_OUT[name]
    assert {rule.clipping for rule in rules.values()} == {None, 0.01}
    assert {rule.eps for rule in rules.values()} == {1e-3}


def test_tensors_and_units_of_f0():
    """57 convs, 12 blocks with SE and a skip gain, one classifier; arXiv:2102.06171 table 6.

    Every output of a conv or dense kernel is a unit, every vector and scalar another.
    """
    stem = 16 + 32 + 64 + 128
    shortcuts = 256 + 512 + 1536 + 1536  # of the first block of each stage
    branches = {256: 1, 512: 2, 1536: 9}  # channels of a block's output to blocks with them
    convs = stem + shortcuts + 3072 + sum(n * (3 * c // 2 + c) for c, n in branches.items())
    dense = 1000 + sum(n * (c // 2 + c) for c, n in branches.items())
    vectors = 57 * 2 + 12 * 2 + 12 + 1
    rules = clip_rules(nfspec.resolve(nfspec.load("nfnet-f0")))
    assert len(rules) == 57 * 3 + 12 * 5 + 2
    assert sum(rule.units for rule in rules.values()) == convs + dense + vectors
    # timm's rule has a unit for each gain in place of 57.
    plan = nfspec.resolve(nfspec.load("timm/dm_nfnet_f0"))
    assert sum(r.units for r in clip_rules(plan).values()) == 2 * convs + dense + vectors - 57


def test_gains_are_one_unit_in_the_original_and_one_each_in_timm():
    for name, each in {"nfnet-f0": False, "timm/dm_nfnet_f0": True}.items():
        rule = clip_rules(nfspec.resolve(nfspec.load(name)))["stem.conv0.gain"]
        assert (rule.axes, rule.units) == ((EACH, 16) if each else (ALL, 1))


PLAN = nfspec.resolve(nfspec.load("nfnet-f0"))


def test_rules_of_some_of_a_plans_tensors():
    names = ["head.fc.kernel", "stem.conv0.gain"]
    assert rules_for(PLAN, names, [(3072, 1000), (16,)]) == [clip_rules(PLAN)[n] for n in names]


@pytest.mark.parametrize(
    ("names", "shapes", "message"),
    [
        (
            ["stem.conv0.kernel"],
            [(16, 3, 3, 3)],
            r"stem.conv0.kernel: expected shape \(3, 3, 3, 16\) .*found \(16, 3, 3, 3\)",
        ),
        (
            ["stem.conv0.kernl"],
            [(3, 3, 3, 16)],
            r'kernl \(3, 3, 3, 16\); did you mean "stem.conv0.kernel"',
        ),
        (["stem.conv0.gain"], [(16,), (16,)], "a name for each of 2 tensors; found 1"),
        (["stem.conv0.gain"] * 2, [(16,), (16,)], "stem.conv0.gain: twice"),
    ],
)
def test_tensors_that_are_not_the_plans(names, shapes, message):
    with pytest.raises(nfspec.InputError, match=message):
        rules_for(PLAN, names, shapes)


def test_a_spec_that_trains_without_clipping_says_so():
    plan = nfspec.resolve(nfspec.load("nf-regnet-b0"))
    with pytest.raises(nfspec.InputError, match=r"nf-regnet-b0 .*without.*enabled = true"):
        rules_for(plan, [], [])
