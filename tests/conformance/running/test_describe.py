"""A judged case in words."""

import re

import numpy as np
import pytest

from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import Expectation, Expected, Finding, judge
from nfspec.conformance.running import describe as describing
from nfspec.conformance.running.describe import describe, infinite

from ..exact_replies import reply

GENERAL = target(None)
CASE = PROPERTIES["WS-01"].cases(GENERAL)[1]
COMMAND = "nfspec replay ..."
EVERY = [PROPERTIES[name].cases(GENERAL)[0] for name in ("WS-01", "WS-02", "ACT-01", "SE-01")]


def judged(case, change=lambda name, y: y):
    """The outputs of an exact subject, changed; what was expected; and the words for it."""
    asked = PROPERTIES[case.property]
    calls = asked.calls(case)
    outputs = {name: change(name, y) for name, y in reply(case, calls).items()}
    expected = asked.expect(case, calls)
    judgement = judge(outputs, expected)
    return outputs, expected, judgement, describe(case, judgement, outputs, expected, COMMAND)


def off(name, y):
    """Off by more than its bound where it is largest."""
    return np.where(np.abs(y) == np.abs(y).max(), np.float32(1.01) * y, y)


def numbers(text):
    """The bound, the ratio, and the terms, as printed."""
    bound, ratio = re.search(r"^bound (\S+), error / bound (\S+)$", text, re.M).groups()
    terms = re.findall(r"^  (.{24}) (\S+)$", text, re.M)
    return float(bound), float(ratio), {label.strip(): float(term) for label, term in terms}


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.property)
def test_the_terms_sum_to_the_bound(case):
    _, expected, judgement, text = judged(case, off)
    bound, ratio, terms = numbers(text)
    worst = judgement.worst
    wanted = expected.outputs[worst.name]
    assert list(terms) == list(wanted.terms)
    assert sum(terms.values()) == pytest.approx(bound, rel=2e-3)
    exact = float(np.broadcast_to(wanted.bound, wanted.value.shape)[worst.at])
    assert bound == pytest.approx(exact, rel=1e-3)
    assert ratio == pytest.approx(judgement.ratio, rel=1e-3)


def test_the_lines():
    outputs, expected, judgement, text = judged(CASE, off)
    lines = text.splitlines()
    at, wanted = judgement.worst.at, expected.outputs["y"]
    assert lines[0] == "WS-01: WS conv"
    assert lines[1] == COMMAND
    value, exact = float(outputs["y"][at]), wanted.value[at]
    assert lines[2] == f"y{list(at)}: found {value:.9g}, expected {exact:.12g}"
    error, ulp = re.match(r"error (\S+) \((\S+) units in the last place\)", lines[3]).groups()
    assert float(error) == pytest.approx(abs(value - exact), rel=1e-3)
    assert float(ulp) == pytest.approx(
        abs(value - exact) / np.spacing(np.float32(abs(exact))), rel=1e-2
    )
    assert "1 of 672 elements beyond their bound" in lines
    counts = [int(n) for n in re.findall(r"(\d+) (?:up to|over) ", lines[-1])]
    assert lines[-1].startswith("elements by error / bound: ")
    assert sum(counts) == outputs["y"].size


def test_a_spread_is_a_line_that_can_be_read():
    """However the ratios are spread, and a ratio of 1 is within the bound."""
    error = 2.0 ** np.arange(-20, 20)
    wanted = Expectation(np.zeros(40), {"all": np.ones(40)})
    finding = Finding("y", 2.0**19, (39,), over=19)
    assert describing._spread(error, wanted, finding)[1] == (
        "elements by error / bound: 14 up to 0.01, 3 up to 0.1, 3 up to 0.5, 1 up to 1, 3 up to "
        "10, 16 over 10"
    )


def test_a_case_that_conforms_is_described_too():
    _, _, judgement, text = judged(CASE)
    assert judgement.ratio <= 1.0
    assert "0 of 672 elements beyond their bound" in text
    assert "also beyond" not in text


def test_few_of_many_outputs_beyond_their_bounds_are_named(monkeypatch):
    monkeypatch.setattr(describing, "MOST_NAMED", 1)
    _, _, _, text = judged(PROPERTIES["WS-02"].cases(GENERAL)[0], off)
    assert re.fullmatch(r"also beyond their bounds: \w+ \(\S+\), and 2 more", text.split("\n")[-1])


def test_other_outputs_beyond_their_bounds_are_named():
    case = PROPERTIES["WS-02"].cases(GENERAL)[0]
    _, _, judgement, text = judged(case, off)
    last = text.splitlines()[-1]
    assert last.startswith("also beyond their bounds: ")
    beyond = {f.name: f.ratio for f in judgement.findings if f is not judgement.worst}
    for name in ("x", "kernel", "gain", "bias"):
        if name != judgement.worst.name:
            assert f"{name} ({beyond[name]:.3g})" in last


def test_values_that_are_not_finite():
    def change(name, y):
        y = y.copy()
        y[0, 1, 2, 3] = np.nan
        return y

    outputs, expected, judgement, text = judged(CASE, change)
    assert text.splitlines()[2] == "y at [0, 1, 2, 3]: 1 of 672 values are not finite"
    assert infinite(judgement.worst, outputs, expected) == "not finite"


@pytest.mark.parametrize(
    "outputs, words, reason",
    [
        ({}, "y: not in the reply", "no output"),
        ({"y": np.ones((2, 3))}, "y: expected shape (2, 7, 6, 8); found (2, 3)", "another shape"),
    ],
)
def test_outputs_that_cannot_be_compared(outputs, words, reason):
    asked = PROPERTIES["WS-01"]
    case = asked.cases(GENERAL)[0]
    expected = asked.expect(case, asked.calls(case))
    judgement = judge(outputs, expected)
    text = describe(case, judgement, outputs, expected, COMMAND)
    assert text.splitlines()[2] == words
    assert infinite(judgement.worst, outputs, expected) == reason


def described(value, wanted):
    outputs, expected = {"y": np.asarray(value, np.float32)}, Expected({"y": wanted})
    return describe(CASE, judge(outputs, expected), outputs, expected, COMMAND).splitlines()


def test_bits():
    """Not an infinite ratio, which says nothing."""
    lines = described([1.0, 2.5], Expectation(np.array([1.0, 2.0])))
    assert lines[2:] == [
        "y[1]: found 2.5, expected 2",
        "error 0.5 (2.1e+06 units in the last place)",
        "bound 0: the same bits were expected; the bits differ",
        "1 of 2 elements differ",
    ]
    lines = described([1.0, 2.0], Expectation(np.array([1.0, 2.0])))
    assert lines[4:] == [
        "bound 0: the same bits were expected; the bits are the same",
        "0 of 2 elements differ",
    ]


@pytest.mark.parametrize(
    "output, exact, words",
    [
        (0.5, 0.0, "error 0.5, where 0 is expected"),
        (0.0, 0.0, "error 0, where 0 is expected"),
        (1.0, 1e-38, "error 1 (1e+38 times the value)"),
        (2.5, 2.0, "error 0.5 (2.1e+06 units in the last place)"),
        (-2.0, 2.0, "error 4 (2 times the value)"),
    ],
)
def test_an_error_has_a_unit_that_says_something(output, exact, words):
    wanted = Expectation(np.array([exact]), {"a": np.array([1e-3])})
    assert described([output], wanted)[3] == words


def test_an_rms():
    terms = {"rounding": np.array(0.25), "other": np.array(0.25)}
    lines = described([2.0, 2.0], Expectation(np.array([1.0, 3.0]), terms, rms=True))
    assert lines[2:] == [
        "y: rms error 1 of values with rms 2.236",
        "bound 0.5, error / bound 2",
        f"  {'rounding':<24} 0.25",
        f"  {'other':<24} 0.25",
    ]


def test_a_number():
    """Without an axis."""
    lines = described(2.0, Expectation(np.array(1.0), {"a": np.array(0.5)}))
    assert lines[2] == "y[]: found 2, expected 1"
    assert "bound 0.5, error / bound 2" in lines
