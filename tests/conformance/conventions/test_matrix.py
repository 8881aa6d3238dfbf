"""The compatibility matrix: what a row says, and one of two small subjects."""

from datetime import date
from importlib.metadata import version

from nfspec.conformance import Settings, conform
from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.conventions.matrix import PARTS, first_sentence, label, markdown, rows
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
    assert row.reason == 'behaves as ws.eps_rule = "add", ws.eps = 1e-05'


def test_a_cause_of_two_properties_is_told_once():
    fields = {"agc.unit": "timm"}
    entries = [
        {"subject": "timm", "property": "AGC-01", "fields": fields},
        {"subject": "timm", "property": "EXACT-04", "fields": fields, "inherits": "AGC-01"},
    ]
    cells = (cell("EXACT-04", "fail", 9.0), cell("AGC-01", "fail", 30.0))
    (row,) = rows(of(*cells, explanations=entries))
    assert row.reason == 'behaves as agc.unit = "timm"'


def test_a_mistake_that_is_none_of_the_conventions():
    defect = "fan-in that counts output channels"
    entry = {"subject": "timm", "property": "WS-01", "fields": {"ws.ddof": 1}, "defects": [defect]}
    (row,) = rows(of(cell("WS-01", "fail", 30.0), explanations=[entry]))
    assert row.reason == f"behaves as ws.ddof = 1; consistent with: {defect}"


def test_what_nothing_explains():
    unexplained = {"subject": "timm", "property": "ACT-01", "fields": {}}
    (row,) = rows(of(cell("ACT-01", "fail", 3.0), explanations=[unexplained]))
    assert row.reason == "ACT-01: unexplained"
    text = markdown([of(cell("ACT-01", "fail", 3.0))], {}, [], date(2026, 11, 24), "abc")
    assert "| timm | the general grid | NOT CONFORMANT | 1 | unexplained |" in text


def test_errors_and_what_is_not_offered():
    error = "timm: Traceback (most recent call last):\nRuntimeError: in place | of"
    several = rows(
        of(
            cell("ACT-01", "fail", 3.0),
            cell("ACT-02", "error", message=error),
            cell("NET-01", "not offered", message="timm: timm has no model for x"),
            cell("ECA-01", "not offered", message="timm: Timm has no eca", no_method=True),
        )
    )
    assert [(row.part, row.verdict) for row in several] == [
        ("activation", "error"),
        ("network", "not offered"),
    ]
    assert several[0].reason == "ACT-01: unexplained; ACT-02: RuntimeError: in place \\| of"
    assert several[1].reason == "NET-01: timm has no model for x"


def test_a_message_is_never_cut_within_its_first_sentence():
    first = (
        "RuntimeError: one of the variables needed for gradient computation has been modified by "
        "an inplace operation: [torch.FloatTensor [2, 7]], which is output 0 of ReluBackward0, is "
        "at version 1; expected version 0 instead."
    )
    assert first_sentence(f"{first} Hint: enable anomaly detection.") == first
    assert first_sentence("3.5 is no version") == "3.5 is no version"
    assert first_sentence("") == ""


def test_a_subject_of_a_file_is_called_by_its_class():
    assert label("conformance/strangers/mule.py:MuleTorch") == "MuleTorch"
    assert label("timm") == "timm"


def test_what_could_not_be_installed_is_a_row():
    problems = {"mule-torch": "it cannot be installed: ERROR: no | match. More text."}
    text = markdown([of(cell("ACT-01", "pass"))], problems, [], date(2026, 11, 24), "abc")
    assert "\n| timm | the general grid | CONFORMANT | 1 |  |\n" in text
    row = "| mule-torch |  | did not run |  | it cannot be installed: ERROR: no \\| match. |"
    assert f"\n{row}\n" in text


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


def test_a_small_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    results = [
        conform(Settings("nfnet-f0", (name,), examples=0, properties=("EXACT-04", "ACT-01")))
        for name in ("mine:Theirs", "mine.py:Ours")
    ]
    text = markdown(results, {}, ["It `squares`."], date(2026, 11, 24), "0123abc")
    lines = text.splitlines()
    first, second = (line for line in lines if " | nfnet-f0 | " in line)
    starts = ("| Theirs | a", "| Theirs | A", "| Ours | A")
    parts = [line for line in lines if line.startswith(starts)]
    assert first.startswith("| Theirs | nfnet-f0 | NOT CONFORMANT | ")
    assert 'agc.unit = "timm"' in first
    assert 'activation.kind = "gelu_erf"' in first
    assert second.startswith("| Ours | nfnet-f0 | CONFORMANT IN PART | ")
    assert [line.split(" | ")[:3] for line in parts] == [
        ["| Theirs", "activation", "deviates"],
        ["| Theirs", "AGC", "deviates"],
        ["| Ours", "AGC", "conforms"],
    ]
    assert 'activation.kind = "gelu_erf"' in parts[0]
    assert 'agc.unit = "timm"' in parts[1]
    assert "\n## Notes on the sources\n\n- It `squares`.\n" in text
    numpy = version("numpy")
    theirs, ours = (f"{name} {numpy} on numpy {numpy} (cpu)" for name in ("Theirs", "Ours"))
    assert lines[-1] == f"{theirs}, {ours}; 2026-11-24, commit 0123abc."


def test_problems_of_a_run_stand_beside_its_verdict():
    results = of(cell("ACT-01", "pass"))
    results.problems = ["deviation x: no property is called Y"]
    text = markdown([results], {}, [], date(2026, 11, 24), "abc")
    assert "| timm | the general grid | NOT CONFORMANT | 1 | deviation x: no property is" in text
