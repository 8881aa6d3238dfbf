"""Mistakes in what is random, in folded networks and in what overflows: each is found, by the
property that is about it."""

import pytest

from nfspec.conformance.cases.regimes import RANGE
from nfspec.conformance.cases.target import target
from nfspec.conformance.faults import FAULTS
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.kill import attempt
from nfspec.conformance.running.run import Settings, columns, essential_cases

NAMES = [name for name in FAULTS if name.startswith(("drop-", "fold-"))]
# Seconds, each like another.
LONG = ("drop-training-lost", "drop-constant-rate", "drop-reversed", "drop-no-dropout")
GENERAL = target(None)


@pytest.fixture(scope="module")
def runner():
    """nfspec on PyTorch, in one process for all of them."""
    with columns(Settings(subjects=("torch",)), "f32") as (runner,):
        yield runner


def case_of(name):
    return essential_cases(PROPERTIES[name], GENERAL, "f32", 0)[0]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES]
)
def test_a_fault_is_found(name, runner):
    runner.fault = name
    kills = attempt([runner], case_of(FAULTS[name].first[-1]))
    assert kills[runner].property == FAULTS[name].first[-1]
    assert not kills[runner].problem


@pytest.mark.parametrize("name", ["act-overflow", "act-slope-overflow"])
def test_what_overflows_is_found(name, runner):
    asked = PROPERTIES[FAULTS[name].first[0]]
    case = next(c for c in essential_cases(asked, GENERAL, "f32", 0) if c.regime == RANGE)
    runner.fault = ""
    assert attempt([runner], case) == {}
    runner.fault = name
    kill = attempt([runner], case)[runner]
    assert (kill.property, kill.problem) == (asked.id, "")
