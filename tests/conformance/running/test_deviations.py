"""Known deviations: a file that is refused with reasons, and entries that are strict both ways."""

import json
from datetime import date

import pytest

from nfspec.conformance.running.deviations import Deviation, DeviationError, apply, load
from nfspec.errors import NfspecError

from ..sample_results import all_pass

ENTRY = {
    "id": '"torch-gelu-tail"',
    "property": '"ACT-03"',
    "subject": '"torch"',
    "device": '"cpu"',
    "mode": '"f32"',
    "versions": '">=2.13,<2.14"',
    "reason": '"rounds where erf cancels"',
    "link": '"https://example.org/issues/1"',
    "opened": "2026-11-24",
    "expires": "2027-05-24",
}
LINE = {key: n for n, key in enumerate(ENTRY, 2)}
PLACE = "deviation torch-gelu-tail: {} on torch/cpu/f32: "
TODAY = date(2026, 12, 1)


def entry_text(**changes: str | None) -> str:
    fields = {**ENTRY, **changes}
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[deviation]]", *lines, ""])


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes x.toml in a folder of its own; returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "x.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path.relative_to(tmp_path)

    return write


@pytest.fixture
def entry(file):
    return lambda **changes: load(file(entry_text(**changes)))[0]


def complaints(path) -> list[str]:
    with pytest.raises(DeviationError) as caught:
        load(path)
    assert isinstance(caught.value, NfspecError)
    return str(caught.value).split("\n")


def run_with(verdict, property_id="ACT-03", column="torch/cpu/f32"):
    results = all_pass()
    cell = results.cell(property_id, column)
    cell.verdict, cell.message = verdict, "" if verdict == "pass" else "ratio 3"
    return results, cell


def test_the_file_that_comes_with_nfspec_loads():
    assert all(isinstance(entry, Deviation) for entry in load())


def test_an_entry_as_it_is_written(file):
    (entry,) = load(file(entry_text()))
    assert (entry.id, entry.expires) == ("torch-gelu-tail", date(2027, 5, 24))


def test_a_file_without_entries(file):
    assert load(file("# none\n")) == ()


WRONG = {
    "device": ('"gpus"', 'expected "cpu", "gpu" or "tpu"; found "gpus"'),
    "mode": ('"fp32"', 'expected "f32", "tf32", "bf16" or "f16"; found "fp32"'),
    "versions": ('"2.13"', 'expected a range of versions such as ">=2.13,<2.14"; found "2.13"'),
    "reason": ('""', "must not be empty"),
    "link": ('"javascript:x"', 'expected an http or https URL; found "javascript:x"'),
    "opened": ('"2026-11-24"', "expected a date without quotes, such as 2026-11-24; "
               'found "2026-11-24"'),
    "expires": ("2026-11-24", "must be after opened, 2026-11-24; found 2026-11-24"),
    "id": ("3", "expected a string; found 3"),
    "subject": ("{}", "expected a string; found a table"),
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value(file, key):
    value, message = WRONG[key]
    expected = f"x.toml:{LINE[key]}:1: deviation[0].{key}: {message} [DEVIATION-FIELD]"
    assert complaints(file(entry_text(**{key: value}))) == [expected]


@pytest.mark.parametrize("key", ENTRY)
def test_every_field_is_required(file, key):
    path = file(entry_text(**{key: None}))
    message = f"deviation[0].{key}: missing; an entry states every field [DEVIATION-FIELD]"
    assert complaints(path) == [f"x.toml:1:1: {message}"]


def test_unknown_keys(file):
    text = "deviations = 1\n" + entry_text(reasons='"x"')
    assert complaints(file(text)) == [
        "x.toml:1:1: deviations: unknown key; entries begin with [[deviation]] [DEVIATION-FIELD]",
        'x.toml:13:1: deviation[0].reasons: unknown key; did you mean "reason"? [DEVIATION-FIELD]',
    ]


def test_two_entries_of_one_id(file):
    message = '"torch-gelu-tail" is the id of an entry above [DEVIATION-DUPLICATE]'
    path = file(entry_text() + entry_text())
    assert complaints(path) == [f"x.toml:13:1: deviation[1].id: {message}"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[deviation", "x.toml: not TOML: "),
        (b"\xff", "x.toml: not UTF-8 text [DEVIATION-READ]"),
        ("a = " + "[" * 5000, "x.toml: not TOML: "),
        ("deviation = 1", "x.toml:1:1: deviation: entries begin with [[deviation]] "),
        ("deviation = [1]", "x.toml:1:14: deviation[0]: expected a table; found 1 "),
    ],
)
def test_a_file_of_something_else(file, text, message):
    (problem,) = complaints(file(text))
    assert problem.startswith(message)


def test_a_file_that_is_not_there(tmp_path):
    (problem,) = complaints(tmp_path / "no.toml")
    assert problem.endswith("no.toml: cannot be read: No such file or directory [DEVIATION-READ]")


@pytest.mark.parametrize("verdict", ["fail", "error"])
def test_what_fails_as_an_entry_says_deviates(entry, verdict):
    results, cell = run_with(verdict)
    assert apply(results, [entry()], TODAY) == []
    assert cell.verdict == "deviates"
    assert cell.message == (
        "deviation torch-gelu-tail, until 2027-05-24: rounds where erf cancels "
        "(https://example.org/issues/1)\nratio 3"
    )
    assert results.conformant
    fields = {key: json.loads(value) for key, value in ENTRY.items() if value[0] == '"'}
    dates = {"opened": "2026-11-24", "expires": "2027-05-24"}
    assert results.deviations == [{**fields, **dates}]


def test_only_the_cell_that_it_names_changes(entry):
    results, cell = run_with("fail")
    apply(results, [entry()], TODAY)
    cell.verdict, cell.message = "pass", ""
    assert results.cells == all_pass().cells


def test_what_passes_nevertheless_is_bad(entry):
    results, cell = run_with("pass")
    assert apply(results, [entry()], TODAY) == []
    assert cell.verdict == "stale deviation"
    expected = "passes, though deviation torch-gelu-tail says that it fails; delete the entry"
    assert cell.message == expected
    assert not results.conformant
    assert results.deviations == []


@pytest.mark.parametrize(
    "today, verdict", [(date(2027, 5, 24), "deviates"), (date(2027, 5, 25), "fail")]
)
def test_an_entry_holds_to_the_day_it_expires(entry, today, verdict):
    results, cell = run_with("fail")
    assert apply(results, [entry()], today) == []
    assert cell.verdict == verdict
    assert (results.deviations == []) == (verdict == "fail")
    expired = "deviation torch-gelu-tail expired on 2027-05-24; renew the entry or fix the cause"
    assert (cell.message == f"{expired}\nratio 3") == (verdict == "fail")


@pytest.mark.parametrize("verdict", ["crashed", "hung", "uncovered", "missing"])
def test_no_entry_excuses_what_did_not_run_to_its_end(entry, verdict):
    results, cell = run_with(verdict)
    assert apply(results, [entry()], TODAY) == []
    assert (cell.verdict, cell.message) == (verdict, "ratio 3")
    assert results.deviations == []


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": '"timm"'},
        {"device": '"gpu"'},
        {"mode": '"tf32"'},
        {"versions": '"<2.13"'},
        {"versions": '">2.13"'},
    ],
)
def test_an_entry_for_what_did_not_run_does_nothing(entry, changes):
    results, cell = run_with("fail")
    assert apply(results, [entry(property='"NONE-01"', **changes)], TODAY) == []
    assert cell.verdict == "fail"


@pytest.mark.parametrize(
    "version, verdict",
    [("2.13.0+cpu", "deviates"), ("2.13.1.dev3", "deviates"), ("2.14.0", "fail"), ("?", "fail")],
)
def test_versions_as_frameworks_write_them(entry, version, verdict):
    results, cell = run_with("fail")
    for column in results.columns:
        column.facts["version"] = version
    apply(results, [entry()], TODAY)
    assert cell.verdict == verdict


def test_a_column_that_never_ran_has_no_version(entry):
    results, cell = run_with("fail")
    for column in results.columns:
        column.facts.clear()
    assert apply(results, [entry()], TODAY) == []
    assert cell.verdict == "fail"


def test_a_property_that_there_is_not(entry):
    results, _ = run_with("fail")
    message = 'no property is called ACT-3; did you mean "ACT-03"?'
    expected = [PLACE.format("ACT-3") + message]
    assert apply(results, [entry(property='"ACT-3"')], TODAY) == expected
    assert apply(results, [entry(property='"ACT-3"')], TODAY, known={"ACT-03"}) == expected


def test_a_property_that_was_left_out_of_the_run(entry):
    results, _ = run_with("fail")
    assert apply(results, [entry(property='"ACT-09"')], TODAY, known={"ACT-09"}) == []


def test_a_cell_that_the_run_lacks(entry):
    results, cell = run_with("fail")
    results.cells.remove(cell)
    assert apply(results, [entry()], TODAY) == [
        PLACE.format("ACT-03") + "the run has no result for it"
    ]


def test_a_cell_that_is_not_offered(entry):
    results, _ = run_with("not offered")
    assert apply(results, [entry()], TODAY) == [
        PLACE.format("ACT-03") + "not offered by torch; delete the entry"
    ]


def test_two_entries_for_one_cell(entry):
    results, cell = run_with("fail")
    problems = apply(results, [entry(id='"a"'), entry()], TODAY)
    assert problems == [PLACE.format("ACT-03") + "a speaks of it already; delete one of them"]
    assert cell.verdict == "deviates"
    assert [fields["id"] for fields in results.deviations] == ["a"]
