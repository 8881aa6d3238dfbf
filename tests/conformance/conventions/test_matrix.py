"""The compatibility matrix: what a row says, and a small one by running."""

from datetime import date
from importlib.metadata import version

from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.conventions import matrix as module
from nfspec.conformance.conventions.matrix import PARTS, conventions, main, markdown, matrix, rows
from nfspec.conformance.properties import PROPERTIES

TIMM = Column(
    "timm", "torch", "cpu", "f32", {"version": "1.0", "framework_version": "2", "device": "cpu"}
)


def cell(property_id, verdict, worst=0.5, message="", **fields):
    return Cell(property_id, TIMM.name, verdict, 1, worst=worst, message=message, **fields)


def of(*cells, explanations=()):
    return Results({}, None, [TIMM], [], list(cells), explanations=list(explanations))


def test_the_parts_are_of_properties():
    assert {i for ids in PARTS.values() for i in ids} <= set(PROPERTIES)


def test_the_worst_of_a_part_and_the_conventions_that_explain_it():
    fields = {"ws.eps_rule": "add", "ws.eps": 1e-5}
    entry = {"subject": "timm", "property": "WS-01", "fields": fields}
    (row,) = rows(of(cell("WS-01", "fail", 30.0), cell("WS-02", "pass"), explanations=[entry]))
    assert (row.part, row.verdict, row.ratio) == ("WS conv", "deviates", "30")
    assert row.conventions == '`ws.eps_rule = "add"`, `ws.eps = 1e-05`' == conventions(fields)


def test_what_nothing_explains():
    unexplained = {"subject": "timm", "property": "ACT-01", "fields": {}}
    (row,) = rows(of(cell("ACT-01", "fail", 3.0), explanations=[unexplained]))
    assert row.conventions == "ACT-01: unexplained"


def test_errors_and_what_is_not_offered():
    error = "Traceback ...\nRuntimeError: in place | of\nat {'property': 'ACT-02'}"
    listed = rows(
        of(
            cell("ACT-01", "fail", 3.0),
            cell("ACT-02", "error", message=error),
            cell("NET-01", "not offered", message="timm: timm has no model for x"),
            cell("ECA-01", "not offered", message="timm: Timm has no eca", no_method=True),
        )
    )
    assert [(row.part, row.verdict) for row in listed] == [
        ("activation", "error"),
        ("network", "not offered"),
    ]
    assert listed[0].conventions == ("ACT-01: unexplained; ACT-02: RuntimeError: in place \\| of")
    assert listed[1].conventions == "NET-01: timm has no model for x"


# In NumPy: one keeps other conventions than DeepMind's, as timm does, the other has AGC alone.
MINE = """
from dataclasses import replace

import numpy as np

from nfspec.reference import operations, training


class Ours:
    framework = package = "numpy"

    def __init__(self, mode):
        pass

    def agc(self, clip):
        return lambda g, p: training.clip(np.float64(g), np.float64(p), clip.rule)[0]


class Theirs(Ours):
    def agc(self, clip):
        return super().agc(replace(clip, unit="timm"))

    def activation(self, op):
        other = replace(op, kind="gelu_erf") if op.kind == "gelu_tanh" else op
        return lambda x: operations.activation(other, np.float64(x))
"""


def test_a_small_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr(module, "IMPLEMENTATIONS", ("mine:Theirs", "mine:Ours"))
    tables = matrix(["nfnet-f0"], ("EXACT-04", "ACT-01"))
    assert "nfnet-f0" in capsys.readouterr().err
    text = markdown(tables, date(2026, 11, 24))
    assert "## nfnet-f0, of the dialect deepmind\n" in text
    lines = [line for line in text.splitlines() if line.startswith("| mine")]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| mine:Theirs", "activation", "deviates"],
        ["| mine:Theirs", "AGC", "deviates"],
        ["| mine:Ours", "AGC", "conforms"],
    ]
    assert '`activation.kind = "gelu_erf"` |' in lines[0]
    assert '`agc.unit = "timm"` |' in lines[1]
    last = text.splitlines()[-1]
    numpy = version("numpy")
    ours = f"mine:Ours {numpy} on numpy {numpy} (cpu)"
    assert last == f"mine:Theirs {numpy} on numpy {numpy} (cpu), {ours}; 2026-11-24."

    monkeypatch.setattr(module, "matrix", lambda: tables)
    main()
    assert capsys.readouterr().out.splitlines()[:-1] == text.splitlines()[:-1]


def test_problems_of_a_run_stand_below_its_table():
    results = of(cell("ACT-01", "pass"))
    results.problems = ["deviation x: no property is called Y"]
    text = markdown({"nfnet-f0": results}, date(2026, 11, 24))
    assert "\n- deviation x: no property is called Y\n" in text
