"""Whole runs: subjects that fail in every way beside one that does not."""

import json
from dataclasses import replace
from math import inf, nan
from types import SimpleNamespace

import pytest

from nfspec.conformance.cases.results import Results
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import Expected
from nfspec.conformance.running import answers
from nfspec.conformance.running.judging import Tally
from nfspec.conformance.running.run import run
from nfspec.conformance.workers import worker as worker_module
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import InputError

from ..fakes import lives, prepare, starts
from .small_runs import IDS, SETTINGS, good, ratios, subjects

NAMES = (
    "Good", "Off", "Third", "Always", "Stillborn", "NotANumber", "Raises", "Torn", "Patchy", "Shy",
    "Narrow", "Hangs",
)  # fmt: skip
PATIENCE = 2.5  # seconds for the one that hangs
GENERAL = target(None)


def impatient(subject, device, mode, timeout, fault):
    """A worker that waits for less long only where there is nothing to wait for."""
    return Worker(subject, device, mode, PATIENCE if subject == "fakes:Hangs" else timeout, fault)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All of them in one run, a framework that is not installed among them."""
    folder = tmp_path_factory.mktemp("run")
    prepare(folder)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(worker_module, "missing", lambda name: f"{name} not installed")
        patch.setattr(answers, "Worker", impatient)
        patch.setattr(worker_module, "FIRST", PATIENCE)
        settings = replace(SETTINGS, subjects=(*subjects(*NAMES), "jax"))
        results = run(settings, progress=lambda results, status: told.append(status.text))
    return results, starts(folder), told


@pytest.fixture
def row(everything):
    """The cells of a subject, by property."""

    def row(name):
        column = f"{name if name == 'jax' else f'fakes:{name}'}/cpu/f32"
        return {cell.property: cell for cell in everything[0].cells if cell.column == column}

    return row


def verdicts(cells):
    return [cells[name].verdict for name in IDS]


def essential(name):
    return len(list(PROPERTIES[name].cases(GENERAL)))


def of_kind(kind):
    return sum(case.op.kind == kind for case in PROPERTIES["ACT-01"].cases(GENERAL))


def test_every_cell_is_there(everything):
    results, _, _ = everything
    assert [info.id for info in results.properties] == list(IDS)
    assert [column.subject for column in results.columns] == [*subjects(*NAMES), "jax"]
    places = {(cell.property, cell.column) for cell in results.cells}
    assert len(places) == len(results.cells) == len(IDS) * (len(NAMES) + 1)
    assert not results.conformant
    assert Results.from_json(results.to_json()).cells == results.cells


def test_the_good_one_is_judged_in_full(row):
    cells = row("Good")
    assert verdicts(cells) == ["pass"] * 4
    for name, cell in cells.items():
        assert cell.cases == essential(name) + SETTINGS.examples
        assert sum(cell.histogram) == cell.cases
        assert 0.0 <= cell.median <= cell.worst <= 1.0
        assert cell.message == ""
    assert cells["EXACT-03"].worst == 0.0 < cells["ACT-01"].worst
    assert cells["AGC-01"].coverage["clipped and not, in one tensor"] > 0


def test_one_that_is_off(row):
    cells = row("Off")
    assert verdicts(cells) == ["fail"] * 4
    # Judged on every essential case, none drawn: there is nothing left to find.
    assert [cells[name].cases for name in IDS] == [essential(name) for name in IDS]
    assert (cells["EXACT-03"].worst, cells["EXACT-03"].infinite) == (inf, "the bits differ")
    assert cells["ACT-01"].infinite == ""
    assert 1.0 < cells["ACT-01"].worst < inf
    message = cells["ACT-01"].message.splitlines()
    assert message[0] == "ACT-01: activation"
    assert message[1].startswith("cd /") and "&& nfspec replay '{" in message[1]
    assert message[1].endswith("' --subject fakes:Off --timeout 60")
    assert json.dumps(cells["ACT-01"].worst_case, separators=(",", ":")) in message[1]


def test_one_that_dies_now_and_then(row, everything):
    """It is asked on after its first death in a property, and left after the second."""
    cells = row("Third")
    assert verdicts(cells) == ["crashed"] * 4
    for name, cell in cells.items():
        assert (cell.cases, cell.unanswered) == (2, 1) if essential(name) < 6 else (4, 2)
        message = cell.message.splitlines()
        if cell.unanswered > 1:
            assert message.pop(0) == "2 cases had no answer; the first:"
        assert message[0] == "fakes:Third: the worker died with status -9"
        assert "nfspec replay " in message[-1]
        assert cell.worst_case["property"] == cell.property
    _, started, _ = everything
    deaths = sum(cell.unanswered for cell in cells.values())
    assert [name for name, _ in started].count("Third") == deaths


def test_one_that_always_dies_is_given_up_after_three(row, everything):
    results, started, _ = everything
    cells = row("Always")
    assert verdicts(cells) == ["crashed"] * 4
    assert [cell.cases for cell in cells.values()] == [0] * 4
    assert [name for name, _ in started].count("Always") == 3
    (column,) = (c for c in results.columns if c.subject == "fakes:Always")
    assert column.problem.startswith("fakes:Always: the worker died with status -9")


def test_one_that_dies_as_it_starts(row, everything):
    assert verdicts(row("Stillborn")) == ["crashed"] * 4
    assert [name for name, _ in everything[1]].count("Stillborn") == 1


def test_one_that_hangs(row):
    cells = row("Hangs")
    assert verdicts(cells) == ["pass", "hung", "pass", "pass"]
    message = cells["ACT-01"].message.splitlines()
    assert message[:2] == [
        "2 cases had no answer; the first:",
        f"fakes:Hangs: no answer after {PATIENCE:g} s",
    ]
    assert message[2].endswith(f" --subject fakes:Hangs --timeout {PATIENCE:g}")


def test_one_that_answers_nan(row):
    cells = row("NotANumber")
    assert verdicts(cells) == ["fail"] * 4
    for cell in cells.values():
        assert (cell.worst, cell.infinite) == (inf, "not finite")
        assert "values are not finite" in cell.message


def test_one_that_raises(row):
    cells = row("Raises")
    assert verdicts(cells) == ["pass", "error", "pass", "pass"]
    cell = cells["ACT-01"]
    assert (cell.cases, cell.unanswered) == (0, essential("ACT-01"))
    first, message = cell.message.split("\n", 1)
    assert first == f"{cell.unanswered} cases had no answer; the first:"
    assert message.startswith("fakes:Raises: Traceback")
    assert "ValueError: no such thing" in message
    assert "another one" not in message


def test_an_error_hides_no_failure(row):
    """The cases after one that raises are asked, and both are told."""
    cell = row("Torn")["ACT-01"]
    assert cell.verdict == "fail" and cell.worst > 1.0
    assert cell.unanswered == of_kind("selu")
    assert cell.cases == essential("ACT-01") - cell.unanswered
    assert cell.message.startswith("ACT-01: activation\n")
    assert "ValueError: selu" in cell.message
    assert cell.message.count("nfspec replay ") == 2


def test_an_error_leaves_the_ratios_of_the_other_cases(row):
    cell = row("Patchy")["ACT-01"]
    assert (cell.verdict, cell.unanswered) == ("error", of_kind("elu") + of_kind("selu"))
    assert cell.cases == essential("ACT-01") - cell.unanswered == sum(cell.histogram)
    assert 0.0 < cell.worst <= 1.0
    assert "ValueError: elu" in cell.message
    assert cell.message.splitlines()[-1] == "another one: ValueError: selu"
    assert cell.worst_case["op"]["kind"] == "elu"


def test_one_that_does_not_offer_everything(row):
    shy, narrow = row("Shy"), row("Narrow")
    assert verdicts(shy) == ["pass", "pass", "pass", "not offered"]
    assert shy["AGC-01"].message == "fakes:Shy: Shy has no agc"
    assert narrow["EXACT-03"].verdict == "pass"
    cell = narrow["ACT-01"]
    assert cell.verdict == "pass in part"
    assert cell.cases + cell.unoffered == row("Good")["ACT-01"].cases
    total = cell.cases + cell.unoffered
    assert cell.message == f"{cell.unoffered} of {total} cases not offered: fakes:Narrow: no selu"


@pytest.mark.parametrize(
    "wanted, verdict, first",
    [
        ({"normal"}, "pass in part", "1 of 2 cases not offered: x: no rain"),
        ({"normal", "rain"}, "pass in part", "met by cases alone that are not offered: rain"),
        ({"normal", "rain", "moonlight"}, "uncovered", "no case met: moonlight"),
    ],
)
def test_a_regime_that_only_cases_meet_that_are_not_offered(wanted, verdict, first):
    """It says nothing against the rest. Where an offered case had to meet it, it does."""
    asked = PROPERTIES["EXACT-03"]
    case, *_ = asked.cases(GENERAL)
    tally = Tally()
    tally.add(case, 0.5, {"normal"})
    met = Expected({}, met=frozenset({"rain"}))
    error = WorkerError("x: no rain", "not offered")
    tally.failed(SimpleNamespace(case=case, expected=met), None, error)
    cell = tally.cell(asked, "x/cpu/f32", frozenset(wanted), 0.0)
    assert (cell.verdict, cell.cases, cell.unoffered) == (verdict, 1, 1)
    assert cell.message.splitlines()[0] == first


def test_a_framework_that_is_not_installed(row, everything):
    assert verdicts(row("jax")) == ["missing"] * 4
    assert everything[0].columns[-1].problem == "jax: jax not installed"


def test_no_worker_is_left(everything):
    _, started, _ = everything
    assert started and not any(lives(pid) for _, pid in started)


def test_progress_is_told(everything):
    _, _, told = everything
    assert told[0].startswith("f32: starting fakes:Good, fakes:Off, ")
    assert [status for status in told if status.endswith("done")] == [
        f"{name} f32: done" for name in IDS
    ]
    assert f"EXACT-03 f32: {essential('EXACT-03')} cases" in told


def test_a_message_may_speak_of_nan(folder):
    results = run(good(subjects=subjects("SaysNaN", "Good"), properties=IDS[:1]), folder)
    assert [cell.verdict for cell in results.cells] == ["error", "pass"]
    assert "float NaN to integer, nor Infinity" in results.cells[0].message


def test_a_ratio_that_is_not_a_number_is_no_pass():
    """As where a bound is not a number, by a mistake in it."""
    asked = PROPERTIES["EXACT-03"]
    case, *_ = asked.cases(GENERAL)
    tally = Tally()
    for ratio in (0.5, nan, 0.25):
        tally.add(case, ratio, ())
    assert tally.cell(asked, "x/cpu/f32", frozenset(), 0.0).verdict == "fail"


def test_a_seed_decides_the_cases(folder):
    one, same = run(good()), run(good())
    assert ratios(one) == ratios(same)
    essential_alone = run(good(seed=1000, examples=0))
    assert all(cell.worst_case["seed"] >= 1000 for cell in essential_alone.cells)
    other = run(good(seed=1000))
    assert ratios(other) != ratios(one)
    assert [c.cases for c in other.cells] == [c.cases for c in one.cells]


def test_no_examples_are_the_essential_cases(folder):
    results = run(good(examples=0))
    assert [cell.cases for cell in results.cells] == [essential(name) for name in IDS]


def test_modes_have_columns_of_their_own(folder):
    results = run(good(modes=("f32", "bf16"), properties=("EXACT-03",)))
    assert [c.name for c in results.columns] == ["fakes:Good/cpu/f32", "fakes:Good/cpu/bf16"]
    assert [c.column for c in results.cells] == [c.name for c in results.columns]
    assert [c.worst_case.get("mode", "f32") for c in results.cells] == ["f32", "bf16"]


def test_workers_are_as_the_settings_say(folder):
    with answers.started(good(timeout=77.0), "bf16", "reply-nan") as (worker,):
        assert (worker.subject, worker.device) == ("fakes:Good", "cpu")
        assert (worker.mode, worker.timeout, worker.fault) == ("bf16", 77.0, "reply-nan")
        ((_, pid),) = starts(folder)
        assert lives(pid)
    assert not lives(pid)


def test_a_regime_that_is_not_met(folder, monkeypatch):
    asked = PROPERTIES["EXACT-03"]
    wanted = frozenset({"integer", "moonlight", "rain"})
    monkeypatch.setitem(PROPERTIES, "EXACT-03", replace(asked, must=lambda cases: wanted))
    results = run(good(properties=("EXACT-03",)))
    (cell,) = results.cells
    assert (cell.verdict, cell.message) == ("uncovered", "no case met: moonlight, rain")
    assert cell.worst == 0.0
    assert not results.conformant


def test_a_failure_is_one_whether_or_not_regimes_are_met(folder, monkeypatch):
    asked = PROPERTIES["EXACT-03"]
    monkeypatch.setitem(
        PROPERTIES, "EXACT-03", replace(asked, must=lambda cases: frozenset({"rain"}))
    )
    results = run(good(subjects=subjects("Off"), properties=("EXACT-03",)))
    assert results.cells[0].verdict == "fail"


def test_an_unknown_property():
    with pytest.raises(InputError, match="--properties: no X-01; expected some of EXACT-01, "):
        run(good(properties=("EXACT-03", "X-01")))


def test_what_is_drawn_counts_towards_the_examples(folder, monkeypatch):
    """Hypothesis runs a failing case again to shrink it; those count, too, and it ends."""
    limit = 5
    original = answers.judge

    def judge(outputs, expected):
        judgement = original(outputs, expected)
        (name,) = expected.outputs
        seen.append(name)
        if len(seen) > essential("POOL-01") + 2:
            first = replace(judgement.findings[0], ratio=2.0)
            return replace(judgement, findings=(first,))
        return judgement

    seen = []
    monkeypatch.setattr(answers, "judge", judge)
    results = run(good(properties=("POOL-01",), examples=limit))
    (cell,) = results.cells
    assert cell.verdict == "fail" and cell.worst == 2.0
    assert cell.cases == len(seen)
    assert cell.cases <= essential("POOL-01") + 100
