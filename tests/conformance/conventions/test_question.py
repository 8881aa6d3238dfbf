"""A subject's answers under other conventions, one answer at a time."""

import math
from dataclasses import replace

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import CONV, target
from nfspec.conformance.conventions.question import Question, discontinuous, value_of
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import PreparedCase, ask
from nfspec.plan import Pool

from . import wrong_subjects as wrong
from .local import LocalWorker

GENERAL = target(None)


@pytest.fixture(scope="module")
def worker():
    return LocalWorker(f"{wrong.__name__}:Exact", "f32")


def question(worker, case):
    prepared = PreparedCase(case)
    answer = ask(prepared, [worker])[worker]
    return Question(prepared.asked, GENERAL, [answer])


VALID = replace(CONV, padding="valid", in_channels=4, out_channels=2)
MAX_POOL = Pool("op", ("x",), "max", 2, 2, "same")


@pytest.mark.parametrize(
    ("name", "op", "shape"),
    [
        ("WS-01", VALID, (2, 7, 6, 4)),
        ("WS-02", VALID, (2, 7, 6, 4)),
        ("POOL-01", MAX_POOL, (2, 6, 6, 3)),
        ("POOL-02", MAX_POOL, (2, 6, 6, 3)),
    ],
)
def test_another_shape_is_an_infinite_ratio(worker, name, op, shape):
    """A gradient's dy has the shape of the output as it was asked for."""
    asking = question(worker, Case(name, regime="normal", op=op, shape=shape))
    assert asking.ratio({}) <= 1.0
    assert asking.ratio({"conv.padding": "symmetric"}) == math.inf


def test_the_value_of_an_operation():
    values = {name: value_of(asked).id for name, asked in PROPERTIES.items()}
    assert {n for n, v in values.items() if v == "WS-01"} == {
        "EXACT-01", "EXACT-02", "MODE-01", "WS-01", "WS-02", "WS-03", "WS-04"
    }  # fmt: skip
    assert {n for n, v in values.items() if v == "AGC-01"} == {
        "EXACT-04", "AGC-01", "AGC-02", "AGC-03", "AGC-04", "AGC-05"
    }  # fmt: skip
    assert values["ACT-02"] == "ACT-01" and values["EXACT-03"] == "POOL-01"
    assert values["NET-01"] == "NET-01"


def test_a_gradient_that_jumps_is_no_evidence():
    case = Case("WS-02", regime="normal", op=replace(CONV, in_channels=4), shape=(2, 7, 6, 4))
    calls = PROPERTIES["WS-02"].calls(case)
    assert not discontinuous(case, calls)
    n_v = case.op.fan_in * calls[0]["kernel"].astype(float).var(axis=(0, 1, 2))
    assert discontinuous(replace(case, op=replace(case.op, eps=float(n_v[0]))), calls)
    assert not discontinuous(replace(case, property="WS-01"), [{"kernel": calls[0]["kernel"]}])
