"""Mistakes in what is random, in folded networks and in what overflows: each is found, by the
property that is about it."""

import pytest

from nfspec.conformance.cases.regimes import RANGE
from nfspec.conformance.cases.target import target
from nfspec.conformance.faults import FAULTS
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import started
from nfspec.conformance.running.kill import attempt
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers import worker as module

NAMES = [name for name in FAULTS if name.startswith(("drop-", "fold-"))]
# Seconds, each like another.
LONG = ("drop-training-lost", "drop-constant-rate", "drop-reversed", "drop-no-dropout")
GENERAL = target(None)


@pytest.fixture(scope="module")
def worker(torch_process):
    """nfspec on PyTorch, in one process for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WorkerProcess", lambda *how: torch_process)
        with started(Settings(subjects=("torch",)), "f32") as (worker,):
            yield worker


def case_of(name):
    return essential_cases(PROPERTIES[name], GENERAL, "f32", 0)[0]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES]
)
def test_a_fault_is_found(name, worker):
    worker.fault = name
    kills = attempt([worker], case_of(FAULTS[name].first[-1]))
    assert kills[worker].property == FAULTS[name].first[-1]
    assert not kills[worker].problem


@pytest.mark.parametrize("name", ["act-overflow", "act-slope-overflow"])
def test_what_overflows_is_found(name, worker):
    asked = PROPERTIES[FAULTS[name].first[0]]
    several = essential_cases(asked, GENERAL, "f32", 0)
    case = next(c for c in several if c.regime == RANGE and c.op.kind == "silu")
    worker.fault = ""
    assert attempt([worker], case) == {}
    worker.fault = name
    kill = attempt([worker], case)[worker]
    assert (kill.property, kill.problem) == (asked.id, "")
