"""Mixed precision: statistics of weights and norms of gradients stay in float32, and a subject that
takes them in less is found out although its results are as narrow as they may be."""

import pytest

from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import PreparedCase, ask, started
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.running.settings import Settings


@pytest.fixture(scope="module")
def worker():
    """nfspec on PyTorch in bfloat16, in one process for all of them."""
    with started(Settings(subjects=("torch",)), "bf16") as (worker,):
        yield worker


@pytest.mark.parametrize(
    ("name", "regime", "fault"),
    [("WS-01", "offset", "ws-kernel-bf16"), ("AGC-01", "large", "agc-narrow-norm")],
)
def test_statistics_and_norms_have_to_stay_in_float32(worker, name, regime, fault):
    cases = essential_cases(PROPERTIES[name], target(None), "bf16", 0)
    prepared = PreparedCase(next(case for case in cases if case.regime == regime))
    worker.fault = ""
    clean = ask(prepared, [worker])[worker]
    worker.fault = fault
    faulty = ask(prepared, [worker])[worker]
    assert clean.ratio <= 1.0 < faulty.ratio


def test_modes_say_that_statistics_are_in_float32():
    assert {precision.accumulate for mode, precision in MODES.items() if mode != "tf32"} == {2**-24}
