"""Failures by cause, and the answer in a sentence."""

import pytest

from nfspec.conformance.cases.results import Cell, Column, PropertyInfo, Results
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report import causes, messages, words
from nfspec.conformance.report.markdown import markdown
from nfspec.conformance.report.terminal import shown

COLUMN = Column("mine:Port", "torch", "cpu", "f32", {"version": "1"})
TRACE = (
    "mine:Port: Traceback (most recent call last):\n"
    '  File "port.py", line 3, in forward\n'
    "KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n\n"
    "Traceback (most recent call last):\n"
    '  File "port.py", line 5, in forward\n'
    "RuntimeError: size mismatch\n  of two tensors\n"
    "nfspec replay '{}' --subject mine:Port"
)


def run(cells, *explanations):
    """Results of cells, each (property, verdict) or with a message, and of explanations."""
    made = [
        Cell(name, COLUMN.name, verdict, cases=3, worst=2.0, message=(*more, "message")[0])
        for name, verdict, *more in cells
    ]
    infos = [PropertyInfo(cell.property, 1, "") for cell in made]
    results = Results({}, None, [COLUMN], infos, made)
    results.explanations = list(explanations)
    return results


def entry(property_id, fields=(), **more):
    return {
        "subject": "mine:Port", "property": property_id, "asked": "nfnet-f0",
        "fields": dict(fields), "ratio_before": 3.0, "ratio_after": 0.5, **more,
    }  # fmt: skip


SAYS = {"ws.ddof": 0, "activation.kind": "gelu_tanh"}
DDOF = entry("WS-01", {"ws.ddof": 1}, says=SAYS)
GELU = entry("ACT-01", {"activation.kind": "gelu_erf"}, says=SAYS)
MODE = entry("MODE-01", {"ws.ddof": 1}, says=SAYS, inherits="WS-01")


def test_the_answer_is_a_sentence_joined_over_the_properties():
    cells = [("MODE-01", "fail"), ("WS-01", "fail"), ("ACT-01", "fail"), ("POOL-01", "pass")]
    assert causes.answers(run(cells, DDOF, GELU, MODE)) == [
        'mine:Port: behaves as ws.ddof = 1 (the spec says 0), activation.kind = "gelu_erf" (the '
        'spec says "gelu_tanh"). With that: conformant.'
    ]


@pytest.mark.parametrize(
    "cells, explanations, sentences",
    [
        ([("WS-01", "fail")], [], []),
        ([("WS-01", "fail")], [entry("WS-01")], []),  # nothing was found
        (
            [("WS-01", "deviates")],
            [DDOF],
            ["mine:Port: behaves as ws.ddof = 1 (the spec says 0). With that: conformant."],
        ),
        (
            [("WS-01", "fail"), ("NET-01", "fail"), ("FC-01", "error")],
            [DDOF, entry("NET-01")],
            [
                "mine:Port: behaves as ws.ddof = 1 (the spec says 0). With that: conformant, but "
                "for NET-01, FC-01."
            ],
        ),
        (
            [("WS-01", "fail"), ("ACT-01", "fail")],
            [entry("WS-01", defects=["no eps in the weight standardisation"]), GELU],
            [
                'mine:Port: behaves as activation.kind = "gelu_erf" (the spec says "gelu_tanh"); '
                "consistent with no eps in the weight standardisation."
            ],
        ),
        (
            [("SE-01", "fail"), ("FC-01", "fail")],
            [entry("SE-01", factor="0.5")],
            ["mine:Port: off by the factor 0.5; not explained: FC-01."],
        ),
        (
            [("WS-01", "fail"), ("NET-01", "fail")],
            [DDOF, entry("NET-01", {"ws.ddof": 0})],
            [
                "mine:Port: behaves as ws.ddof = 1 (the spec says 0) (in WS-01), ws.ddof = 0 (in "
                "NET-01). With that: conformant."
            ],
        ),
    ],
)
def test_the_answer(cells, explanations, sentences):
    assert causes.answers(run(cells, *explanations)) == sentences


def test_a_cause_is_told_once():
    """The property whose explanation the others inherit is the first, whatever the order was."""
    cells = [
        ("MODE-01", "fail"), ("WS-01", "fail"), ("FC-01", "error", TRACE), ("POOL-01", "fail"),
        ("FC-02", "error", TRACE), ("RES-01", "uncovered", "no case met: rain"),
    ]  # fmt: skip
    results = run(cells, DDOF, MODE)
    told = causes.causes(results)
    assert [(cause.heading, [cell.property for cell in cause.cells]) for cause in told] == [
        (
            "mine:Port: behaves as ws.ddof = 1 (the spec says 0) (2 properties)",
            ["WS-01", "MODE-01"],
        ),
        ("mine:Port: error: RuntimeError: size mismatch (2 properties)", ["FC-01", "FC-02"]),
        (
            "mine:Port: no case met a regime that cases have to meet (1 property)",
            ["RES-01"],
        ),
        ("mine:Port: no cause is known (1 property)", ["POOL-01"]),
    ]
    lines = shown(results)
    assert lines.count("RuntimeError: size mismatch (the report has the traceback)") == 1
    assert "  MODE-01 on mine:Port/cpu/f32: fail 2" in lines
    assert "<details><summary>For the same reason: MODE-01</summary>" in markdown(results)


def test_a_cause_that_is_made_of_others_is_told_with_these():
    both = {**DDOF["fields"], **GELU["fields"]}
    cells = [(name, "fail") for name in ("WS-01", "ACT-01", "BLOCK-01", "NET-01", "SE-01")]
    more = entry("NET-01", both, defects=["a stem"])
    told = causes.causes(run(cells, DDOF, GELU, entry("BLOCK-01", both), more))
    assert [(cause.heading, [cell.property for cell in cause.cells]) for cause in told] == [
        (
            "mine:Port: behaves as ws.ddof = 1 (the spec says 0) (1 property; BLOCK-01 for "
            "other reasons, too)",
            ["WS-01", "BLOCK-01"],
        ),
        (
            'mine:Port: behaves as activation.kind = "gelu_erf" (the spec says "gelu_tanh") (1 '
            "property; BLOCK-01 for other reasons, too)",
            ["ACT-01"],
        ),
        (
            'mine:Port: behaves as ws.ddof = 1, activation.kind = "gelu_erf"; consistent with: a '
            "stem (1 property)",
            ["NET-01"],
        ),
        ("mine:Port: no cause is known (1 property)", ["SE-01"]),
    ]


def test_a_value_that_may_be_smaller_is_said_so():
    cells = [("NET-01", "fail")]
    results = run(cells, entry("NET-01", {"ws.eps": 1e-6}, at_most=["ws.eps"]))
    answer = "mine:Port: behaves as ws.eps = 1e-06 or less. With that: conformant."
    assert causes.answers(results) == [answer]
    (cause,) = causes.causes(results)
    assert cause.reason == "behaves as ws.eps = 1e-06 or less"


def test_the_answer_of_some_properties_is_said_to_be_of_these():
    results = run([("WS-01", "fail")], DDOF)
    results.settings = {"properties": ["WS-01"]}
    assert causes.answers(results) == [
        "mine:Port: behaves as ws.ddof = 1 (the spec says 0). With that: conformant in what was "
        "run (WS-01)."
    ]


def test_an_explanation_stays_where_another_property_has_none():
    cells = [("AGC-01", "fail"), ("STEP-01", "fail")]
    results = run(cells, entry("AGC-01", defects=["an eps"]), entry("STEP-01"))
    assert causes.answers(results) == ["mine:Port: consistent with an eps; not explained: STEP-01."]
    assert [(c.reason, c.cells[0].property) for c in causes.causes(results)] == [
        ("consistent with: an eps", "AGC-01"), ("", "STEP-01"),
    ]  # fmt: skip


def test_the_verdict_and_the_answer_come_first():
    lines = shown(run([("WS-01", "fail")], DDOF))
    assert lines[0].startswith("NOT CONFORMANT: ")
    assert lines[1].startswith("mine:Port: behaves as ws.ddof = 1")
    assert lines[3].split() == ["property", "mine:Port/cpu/f32"]


def test_a_traceback_is_one_part_whose_last_error_stands_for_it():
    first, last = messages.parts(TRACE)
    assert first.summary == "RuntimeError: size mismatch"
    assert first.text.endswith("  of two tensors") and first.text.count("Traceback") == 2
    assert (last.summary, last.text) == ("", "nfspec replay '{}' --subject mine:Port")
    assert messages.last_line(TRACE) == "RuntimeError: size mismatch"
    assert messages.last_line("") == "no message"
    (only,) = messages.parts("y: not in the reply")
    assert (only.summary, only.text) == ("", "y: not in the reply")


def test_an_explanation_says_all_that_it_has():
    results = run([("WS-01", "fail")])
    lines = [
        causes.explanation(results, each)
        for each in (
            MODE,
            entry("WS-01", {"ws.ddof": 1}, defects=["no eps"]),
            entry("SE-01", factor="0.1667 = 1/√36"),
            entry("WS-01", error="the search for an explanation failed: ValueError: x"),
        )
    ]
    asked = "mine:Port asked for nfnet-f0: "
    assert lines == [
        f"{asked}behaves as ws.ddof = 1 (the spec says 0) (MODE-01, as WS-01: ratio 3 before, "
        "ratio 0.5 after)",
        f"{asked}behaves as ws.ddof = 1; consistent with: no eps (WS-01: ratio 3 before, ratio "
        "0.5 after)",
        f"{asked}off by the factor 0.1667 = 1/√36 (SE-01: ratio 3 before, ratio 0.5 after)",
        f"{asked}the search for an explanation failed: ValueError: x (WS-01: ratio 3)",
    ]


def test_an_infinite_ratio_is_told_by_its_reason():
    results = run([("EXACT-01", "fail")], entry("EXACT-01", {"ws.ddof": 1}, ratio_before="inf"))
    (cell,) = results.cells
    cell.worst, cell.infinite = float("inf"), "the bits differ"
    assert words.verdict(cell) == "fail: the bits differ"
    text = markdown(results)
    assert "inf" not in text.replace("information", "")
    assert "(EXACT-01: the bits differ before, ratio 0.5 after)" in text


def test_an_error_keeps_the_ratio_of_the_other_cases():
    (cell,) = run([("ACT-01", "error")]).cells
    cell.worst = 0.25
    assert words.verdict(cell) == "error, others 0.25"


def test_every_tier_and_every_regime_is_explained():
    general = target(None)
    for asked in PROPERTIES.values():
        assert asked.tier in words.TIERS
        names = {case.regime for case in asked.cases(general)}
        assert names - set(words.REGIMES) == set(), asked.id
