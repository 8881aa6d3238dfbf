"""The columns of [ws] in which convs differ, and what that is called."""

import pytest

import nfspec
from nfspec.plan.standardisation import one_for_all, uneven

CASES = {
    "none": ({}, (), ""),
    "a list of one value": ({"ws.eps": [1e-5] * 4}, (), ""),
    "eps": (
        {"ws.eps": [1e-4, 1e-4, 1e-4, 1e-6]},
        ("eps",),
        "has another ws.eps in some stages",
    ),
    "all": (
        {
            "ws.eps": [1e-4, 1e-4, 1e-4, 1e-6],
            "ws.ddof": [1, 0, 0, 0],
            "ws.eps_rule": ["max", "none", "max", "max"],
        },
        ("eps", "eps_rule", "ddof"),
        "has another ws.eps and ws.eps_rule and ws.ddof in some stages",
    ),
    "no gain in a stage": (
        {"ws.gain": [True, True, False, True]},
        ("gain",),
        "has another ws.gain in some stages",
    ),
    "no gain": ({"ws.gain": False}, (), "has convs without a gain (ws.gain = false)"),
    "no standardisation": (
        {"ws.eps_rule": "none"},
        (),
        'has convs that are not standardised (ws.eps_rule = "none")',
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_convs_that_differ(name):
    changes, fields, reason = CASES[name]
    plan = nfspec.resolve(nfspec.load("nfnet-f0", changes))
    assert uneven(plan) == fields
    assert one_for_all(plan) == reason


def test_a_folded_network_has_nothing_that_differs():
    spec = nfspec.load("nfnet-nano", {"stages.depth": [1, 1], "stages.width": [16, 16],
                                      "stages.stride": [1, 2], "ws.eps": [1e-4, 1e-2],
                                      "stages.group_width": 4})  # fmt: skip
    plan = nfspec.resolve(spec)
    assert uneven(plan) == ("eps",)
    assert uneven(nfspec.fold(plan, nfspec.init(plan)).plan) == ()
