"""Kinds of properties and cases."""

from dataclasses import replace

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import CONV
from nfspec.conformance.conventions.kinds import discontinuous, follows, value_of
from nfspec.conformance.properties import PROPERTIES


def test_the_value_of_an_operation():
    values = {name: value_of(asked).id for name, asked in PROPERTIES.items()}
    assert {n for n, v in values.items() if v == "WS-01"} == {
        "EXACT-01", "EXACT-02", "MODE-01", "WS-01", "WS-02", "WS-03", "WS-04"
    }  # fmt: skip
    assert {n for n, v in values.items() if v == "AGC-01"} == {
        "EXACT-04", "AGC-01", "AGC-02", "AGC-03", "AGC-04", "AGC-05"
    }  # fmt: skip
    assert values["ACT-02"] == "ACT-01" and values["EXACT-03"] == "POOL-01"
    assert values["NET-01"] == "NET-01" and values["STEP-01"] == "STEP-01"
    follow = {name for name, asked in PROPERTIES.items() if follows(asked)}
    assert follow == {"NET-02", "FOLD-01", "TRAIN-01"}
    assert {values[name] for name in follow} == {"NET-03"}


def test_a_gradient_that_jumps_is_no_evidence():
    case = Case("WS-02", regime="normal", op=replace(CONV, in_channels=4), shape=(2, 7, 6, 4))
    calls = PROPERTIES["WS-02"].calls(case)
    assert not discontinuous(case, calls)
    n_v = case.op.fan_in * calls[0]["kernel"].astype(float).var(axis=(0, 1, 2))
    assert discontinuous(replace(case, op=replace(case.op, eps=float(n_v[0]))), calls)
    assert not discontinuous(replace(case, property="WS-01"), [{"kernel": calls[0]["kernel"]}])
