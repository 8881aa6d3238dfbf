"""The data of a run: histogram, verdict on the whole, and JSON there and back."""

import json
import math
from dataclasses import replace
from typing import get_args

import pytest

from nfspec.conformance.cases.results import (
    HISTOGRAM_EDGES,
    SCHEMA,
    Cell,
    Column,
    PropertyInfo,
    Results,
    Verdict,
    cell_of,
    histogram,
)

from ..sample_results import sample

GOOD = {"pass", "pass in part", "deviates", "compiles"}
NEITHER = {"missing", "not offered"}


def one_cell(*verdicts: str) -> Results:
    cells = [Cell(f"P-{n}", "jax/cpu/f32", verdict) for n, verdict in enumerate(verdicts)]
    infos = [PropertyInfo(cell.property, 1, "") for cell in cells]
    return Results({}, None, [Column("jax", "jax", "cpu", "f32")], infos, cells)


@pytest.mark.parametrize(
    "ratio, index",
    [
        (0.0, 0),
        (2.0**-12.5, 0),
        (2.0**-12, 1),
        (0.6, 12),
        (1.0, 13),  # 1 is within the bound, but the first of the bin above it
        (15.9, 16),
        (16.0, 17),
        (1e300, 17),
        (math.inf, 17),
        (math.nan, 17),
    ],
)
def test_the_bin_of_a_ratio(ratio, index):
    assert histogram([ratio]) == [int(n == index) for n in range(len(HISTOGRAM_EDGES) + 1)]


def test_a_histogram_counts_every_ratio():
    assert sum(histogram([0.1, 0.1, 3.0, math.nan])) == 4
    assert histogram([]) == [0] * (len(HISTOGRAM_EDGES) + 1)


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_what_a_verdict_makes_of_a_run(verdict):
    assert one_cell(verdict).conformant == (verdict in GOOD)
    assert one_cell("pass", verdict).conformant == (verdict in GOOD | NEITHER)


@pytest.mark.parametrize(
    "verdicts, whole",
    [
        ((), "NOTHING JUDGED"),
        (("missing", "not offered"), "NOTHING JUDGED"),
        (("crashed",), "NOTHING JUDGED"),  # no case was answered
        (("pass", "crashed"), "NOT CONFORMANT"),
        (("fail",), "NOT CONFORMANT"),
        (("uncovered",), "NOT CONFORMANT"),
        (("deviates", "missing"), "CONFORMANT"),
        (("pass in part",), "CONFORMANT IN PART"),
        (("pass", "not offered"), "CONFORMANT IN PART"),
        (("pass in part", "not offered", "missing"), "CONFORMANT IN PART"),
        (("pass in part", "fail"), "NOT CONFORMANT"),
        (("not offered", "uncovered"), "NOT CONFORMANT"),
    ],
)
def test_the_verdict_on_a_run(verdicts, whole):
    assert one_cell(*verdicts).verdict == whole
    assert one_cell(*verdicts).conformant == (whole in ("CONFORMANT", "CONFORMANT IN PART"))


def test_a_run_that_stopped_after_some_cases_was_judged():
    results = one_cell("crashed")
    results.cells[0].cases = 3
    assert results.verdict == "NOT CONFORMANT"


def test_a_run_with_a_problem_is_not_conformant():
    results = one_cell("pass")
    results.problems = ["deviation x: no property is called Y"]
    assert results.verdict == "NOT CONFORMANT"
    results.cells[0].verdict = "missing"
    assert results.verdict == "NOTHING JUDGED"


# Fields of a cell that earlier versions lack, and what they are where they are lacking.
ADDED = {"no_method": False, "unoffered": 0, "unanswered": 0, "wide": 0, "infinite": ""}


def test_results_of_earlier_versions_are_read():
    """They lack fields that later ones have."""
    data = json.loads(sample().to_json())
    for name in ("verdict", "notes", "folder"):
        del data[name]
    for cell in data["cells"]:
        for name in ADDED:
            del cell[name]
    expected = sample()
    expected.notes = []
    expected.cells = [replace(cell, **ADDED) for cell in expected.cells]
    assert repr(Results.from_json(json.dumps(data))) == repr(expected)


def test_a_cell_by_property_and_column():
    results = sample()
    cell = results.cell("ACT-02", "torch/cpu/f32")
    assert (cell.property, cell.column, cell.verdict) == ("ACT-02", "torch/cpu/f32", "fail")
    assert results.cell("BLOCK-03", "tensorflow/cpu/bf16") is None


def test_json_and_back():
    """All fields return, numbers that are not finite among them; nan, which is unequal to itself,
    as text."""
    results = sample()
    again = Results.from_json(results.to_json())
    assert repr(again) == repr(results)
    assert again.to_json() == results.to_json()


def test_the_json_is_of_a_kind_that_any_reader_takes():
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    data = json.loads(sample().to_json(), parse_constant=refuse)
    assert data["schema"] == SCHEMA
    assert data["conformant"] is False
    assert {cell["worst"] for cell in data["cells"] if isinstance(cell["worst"], str)} == {
        "inf",
        "nan",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"cases": []},
        {"message": [{"": None}]},
        {"verdict": "splendid"},
        {"column": 5},
        {"coverage": [1]},
        {"histogram": [3]},
        {"histogram": [-1] * (len(HISTOGRAM_EDGES) + 1)},
        {"worst": "large"},
        {"worst_case": 5},
        {"another": 1},
    ],
    ids=str,
)
def test_a_cell_whose_fields_are_of_another_kind_is_none(change):
    fields = json.loads(sample().to_json())["cells"][0]
    assert cell_of(fields) == sample().cells[0]
    with pytest.raises((TypeError, ValueError)):
        cell_of(fields | change)
