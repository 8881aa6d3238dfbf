"""What is random and what is folded: mistakes in them are found, and found for what they are."""

import pytest

from nfspec.conformance.faults import FAULTS
from nfspec.conformance.kill import attempt
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.run import Settings, columns, essential_cases
from nfspec.conformance.target import target

NAMES = [name for name in FAULTS if name.startswith(("drop-", "fold-"))]
LONG = ("drop-training-lost", "drop-reversed", "drop-no-dropout")  # seconds, each like another
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
