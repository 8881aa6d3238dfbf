"""One case again, as its line of JSON has it."""

import json
from dataclasses import replace

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.replay import replay, status
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings
from nfspec.errors import InputError, NfspecError

from local_process import use_this_process


@pytest.fixture(autouse=True)
def local(folder, monkeypatch):
    use_this_process(monkeypatch, folder)


GENERAL = target(None)
POOL = PROPERTIES["EXACT-03"].cases(GENERAL)[0]
ACTIVATION = PROPERTIES["ACT-01"].cases(GENERAL)[0]
CLIP = PROPERTIES["AGC-01"].cases(GENERAL)[0]


def answer(case, name="Good", fault="", timeout=600.0):
    line = case if isinstance(case, str) else case.line()
    (replayed,) = replay(line, (f"fakes:{name}",), "cpu", fault, timeout)
    return replayed


@pytest.mark.parametrize("mode", ["f32", "bf16"])
def test_the_ratio_is_that_of_the_run(folder, mode):
    names = ("ACT-01", "AGC-01")
    settings = Settings(
        subjects=("fakes:Off",), properties=names, examples=0, modes=(mode,), timeout=60.0
    )
    for cell in run(settings).cells:
        replayed = answer(json.dumps(cell.worst_case), "Off", timeout=60.0)
        assert replayed.ratio == cell.worst
        assert replayed.text == cell.message if cell.verdict == "fail" else cell.message == ""
        beyond = {"fail": "BEYOND ITS BOUND", "pass": "within its bound"}[cell.verdict]
        assert (replayed.column, replayed.verdict) == (f"fakes:Off/cpu/{mode}", beyond)


def test_a_case_within_its_bound(folder):
    replayed = answer(ACTIVATION)
    assert 0.0 < replayed.ratio <= 1.0
    assert replayed.verdict == "within its bound"
    assert replayed.text.startswith("ACT-01: activation\n")


@pytest.mark.parametrize(
    "case, fault",
    [
        (ACTIVATION, "act-gamma-digits"),
        (ACTIVATION, "gamma+1e-03"),
        (CLIP, "agc-lambda"),
        (CLIP, "agc-gradient-scaled"),
        (POOL, "reply-nan"),
    ],
)
def test_with_a_fault_it_is_larger(folder, case, fault):
    plain, faulty = answer(case), answer(case, fault=fault)
    assert plain.ratio <= 1.0 < faulty.ratio
    assert faulty.verdict == "BEYOND ITS BOUND"


def test_several_subjects_answer_for_themselves(folder):
    names = ("fakes:Good", "fakes:Always", "fakes:Off", "fakes:Raises")
    good, always, off, raises = replay(ACTIVATION.line(), names, "cpu")
    assert good.ratio <= 1.0 < off.ratio
    assert (always.ratio, raises.ratio) == (None, None)
    assert (always.column, always.verdict) == ("fakes:Always/cpu/f32", "crashed")
    assert always.text.startswith("fakes:Always: the worker died ")
    assert raises.verdict == "error" and raises.text.startswith("fakes:Raises: Traceback ")
    assert status([good]) == 0
    assert status([good, off]) == status([good, always]) == 1
    assert status([always, raises]) == 2


def test_a_subject_that_there_is_not(folder):
    with pytest.raises(InputError, match="fakes has no Nobody"):
        replay(ACTIVATION.line(), ("fakes:Nobody",), "cpu")


def test_what_is_not_offered(folder):
    shy = answer(CLIP, "Shy")
    assert (shy.verdict, shy.text) == ("not offered", "fakes:Shy: Shy has no agc")


BLOCK = Case("BLOCK-01", spec="timm/test_nfnet", digest=target("timm/test_nfnet").spec.digest)
NOPE = Case("NET-03", spec="nope")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "not a case: "),
        ('{"property":"EXACT-3"}', 'no property "EXACT-3"; did you mean "EXACT-03"'),
        (NOPE.line(), 'no built-in spec "nope"'),
    ],
)
def test_a_line_that_cannot_be_run(line, message):
    with pytest.raises(NfspecError, match=message):
        replay(line, (), "cpu")


def test_a_fault_that_there_is_not():
    with pytest.raises(InputError, match='no fault "nothing"'):
        replay(POOL.line(), (), "cpu", "nothing")


# Of the right form, and about nothing that the property could be asked about.
MISFITS = {
    "no operation": replace(POOL, op=None),
    "another operation": replace(POOL, op=ACTIVATION.op),
    "a shape of another rank": replace(POOL, shape=(2,)),
    "a side below 0": replace(POOL, shape=(2, -1, 6, 3)),
    "no pixels": replace(POOL, shape=(2, 0, 0, 3)),
    "an unknown activation": replace(ACTIVATION, op=replace(ACTIVATION.op, kind="nope")),
    "an unknown unit": replace(CLIP, op=replace(CLIP.op, unit="nope")),
    "no block": BLOCK,
    "an unknown block": replace(BLOCK, block="stages.9.blocks.0"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_case_that_does_not_fit_its_property(what):
    with pytest.raises(InputError):
        replay(MISFITS[what].line(), (), "cpu")
