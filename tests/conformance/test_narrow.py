"""Mixed precision: statistics of weights and norms of gradients stay in float32, and a subject that
takes them in less is found out although its results are as narrow as they may be."""

import pytest

from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.replay import replay
from nfspec.conformance.running.run import essential_cases


def first(name, regime):
    cases = essential_cases(PROPERTIES[name], target(None), "bf16", 0)
    return next(case for case in cases if case.regime == regime)


@pytest.mark.parametrize(
    ("name", "regime", "fault"),
    [("WS-01", "offset", "ws-kernel-bf16"), ("AGC-01", "large", "agc-narrow-norm")],
)
def test_what_has_to_stay_in_float32(name, regime, fault):
    line = first(name, regime).line()
    (clean,) = replay(line, ("torch",), "cpu")
    (faulty,) = replay(line, ("torch",), "cpu", fault)
    assert clean.ratio <= 1.0 < faulty.ratio


def test_modes_say_that_statistics_are_in_float32():
    assert {precision.accumulate for mode, precision in MODES.items() if mode != "tf32"} == {2**-24}
