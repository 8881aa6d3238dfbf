"""Complete runs as Python callers make them."""

import json
from dataclasses import replace

import pytest

from nfspec.conformance import Results, Settings, conform, runs, seed_faults
from nfspec.conformance.running.run import Status
from nfspec.errors import InputError, NfspecError

from .fakes import prepare
from local_process import use_this_process

SETTINGS = Settings(subjects=("fakes:Good",), properties=("EXACT-03",), examples=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    use_this_process(monkeypatch, tmp_path)
    return tmp_path


def test_a_run_and_its_reports(folder):
    told = []
    results = conform(SETTINGS, "out", progress=lambda results, status: told.append(status))
    assert (results.verdict, results.problems) == ("CONFORMANT", [])
    assert Status("EXACT-03 f32: done") in told
    assert Status("EXACT-03 f32: 1 cases", counting=True) in told
    written = Results.from_json((folder / "out" / "results.json").read_text())
    assert written.cells == results.cells
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "REPORT.md", "journal.jsonl", "report.html", "results.json",
    ]  # fmt: skip


def test_reports_are_there_before_anything_is_explained(folder, monkeypatch):
    """And an explanation that ends in an error loses nothing of the run."""
    seen = []

    def broken(settings, results, progress):
        written = Results.from_json((folder / "out" / "results.json").read_text())
        seen.append((written.verdict, (folder / "out" / "REPORT.md").exists()))
        raise ValueError("matmul: size 12 is different from 24\nat length")

    monkeypatch.setattr(runs, "explain", broken)
    results = conform(replace(SETTINGS, subjects=("fakes:Off",)), "out")
    assert seen == [("NOT CONFORMANT", True)]
    assert (results.verdict, results.problems) == ("NOT CONFORMANT", [])
    (note,) = results.notes
    assert note == (
        "the search for explanations ended in an error, ValueError: matmul: size 12 is different "
        "from 24"
    )
    for name in ("REPORT.md", "report.html", "results.json"):
        assert note in (folder / "out" / name).read_text()


def test_a_subject_that_offers_a_part_is_conformant_in_part(folder):
    settings = replace(SETTINGS, subjects=("fakes:Shy",), properties=("EXACT-03", "AGC-01"))
    results = conform(settings, "out")
    assert (results.verdict, results.conformant) == ("CONFORMANT IN PART", True)
    sentence = (
        "Nothing wrong was found in what is offered. fakes:Shy/cpu/f32: 1 of 2 properties not "
        "offered (it has no agc)."
    )
    report = (folder / "out" / "REPORT.md").read_text()
    assert "**CONFORMANT IN PART**" in report and sentence in report
    assert "- fakes:Shy/cpu/f32: AGC-01: fakes:Shy: Shy has no agc" in report
    assert sentence in (folder / "out" / "report.html").read_text()


@pytest.mark.parametrize("name, reason", [("Shy", "Shy has no agc"), ("Flat", "kernels are not ")])
def test_what_must_be_offered_and_is_not_is_a_problem(folder, name, reason):
    """In whole or in part."""
    settings = replace(SETTINGS, subjects=(f"fakes:{name}",), must_offer=("agc", "pool"))
    results = conform(replace(settings, properties=("EXACT-03", "AGC-01")))
    assert results.verdict == "NOT CONFORMANT"
    (problem,) = results.problems
    assert problem.startswith(f"must-offer agc: fakes:{name}/cpu/f32: AGC-01: ")
    assert reason in problem


def test_a_method_that_no_property_asks_for_must_be_there(folder):
    settings = replace(SETTINGS, must_offer=("agc",))
    results = conform(replace(settings, subjects=("fakes:Shy",)))
    assert results.verdict == "NOT CONFORMANT"
    assert results.problems == ["must-offer agc: fakes:Shy/cpu/f32: fakes:Shy: Shy has no agc"]
    results = conform(settings)
    assert (results.verdict, results.problems) == ("CONFORMANT", [])
    assert results.notes == ["must-offer agc: no property of this run asks for it"]


def test_gradients_that_a_subject_of_numpy_does_not_have_are_no_lack(folder):
    settings = replace(SETTINGS, must_offer=("activation",), properties=("ACT-01", "ACT-02"))
    results = conform(settings)
    assert [cell.verdict for cell in results.cells] == ["pass", "not offered"]
    assert (results.verdict, results.problems) == ("CONFORMANT IN PART", [])


def test_answers_in_float64_are_noted(folder):
    results = conform(replace(SETTINGS, subjects=("fakes:Wide", "fakes:Good")))
    assert results.verdict == "CONFORMANT"
    assert results.notes == [
        "fakes:Wide/cpu/f32: answers in float64 where float32 was asked for (EXACT-03)"
    ]


def test_a_method_whose_name_is_not_asked_for_is_noted(folder):
    results = conform(replace(SETTINGS, subjects=("fakes:Misspelt",)))
    assert results.notes == [
        "fakes:Misspelt: the public method wsconv is not one that the kit asks for; did you mean "
        '"ws_conv"?'
    ]


def test_without_a_folder_nothing_is_written(folder):
    before = sorted(folder.iterdir())
    assert conform(SETTINGS).conformant
    # The subject's own list of its starts, and what Python keeps of the module that it is in.
    known = ("starts", "__pycache__")
    assert sorted(path for path in folder.iterdir() if path.name not in known) == before


def test_a_required_subject_that_is_not_there_is_a_problem_of_the_run(folder):
    results = conform(SETTINGS, "out", required=("fakes:Good", "jax"))
    assert results.verdict == "NOT CONFORMANT"
    assert results.problems == ["required: jax: not among the subjects"]
    assert "- required: jax: not among the subjects" in (folder / "out" / "REPORT.md").read_text()


def test_an_earlier_run_is_left_as_it_is(folder):
    (folder / "out").mkdir()
    (folder / "out" / "results.json").write_text("kept")
    with pytest.raises(InputError, match=r"out holds results\.json of an earlier run"):
        conform(SETTINGS, folder / "out")
    assert (folder / "out" / "results.json").read_text() == "kept"
    conform(SETTINGS, folder / "out", force=True)
    assert json.loads((folder / "out" / "results.json").read_text())["verdict"] == "CONFORMANT"


def test_a_finished_run_of_the_same_settings_is_replaced(folder, capsys):
    conform(SETTINGS, "out")
    assert conform(SETTINGS, "out").verdict == "CONFORMANT"
    assert "out: the finished run of the same settings is replaced" in capsys.readouterr().err
    with pytest.raises(InputError, match="of an earlier run"):
        conform(replace(SETTINGS, seed=1), "out")


def test_an_interrupted_run_is_not_replaced(folder):
    def interrupt(results, status):
        if status.text == "EXACT-03 f32: done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conform(SETTINGS, "out", progress=interrupt)
    with pytest.raises(InputError, match="go on with --resume"):
        conform(SETTINGS, "out")
    assert conform(SETTINGS, "out", resume=True).verdict == "CONFORMANT"
    assert conform(SETTINGS, "out").verdict == "CONFORMANT"


@pytest.mark.parametrize("name", ["fakes:Nobody", "fakes:Stillborn"])
def test_a_run_in_which_no_subject_starts_leaves_nothing(folder, name):
    settings = replace(SETTINGS, subjects=(name,))
    try:
        assert conform(settings, "out").verdict == "NOTHING JUDGED"
    except InputError as error:
        assert "fakes has no Nobody" in str(error)
    assert not (folder / "out").exists()
    assert conform(SETTINGS, "out").verdict == "CONFORMANT"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"properties": ("WS-99",)}, "no WS-99"),
        ({"source": "nfnet-f00"}, 'did you mean "nfnet-f0"'),
        ({"subjects": ("fakes.Good",)}, 'did you mean "fakes:Good"'),
    ],
)
def test_settings_are_checked_before_the_folder(folder, changes, message):
    (folder / "out").mkdir()
    (folder / "out" / "results.json").write_text("kept")
    with pytest.raises(NfspecError, match=message):
        conform(replace(SETTINGS, **changes), "out")


def test_failures_are_not_explained_where_that_is_not_wanted(folder, monkeypatch):
    monkeypatch.setattr(runs, "explain", None)  # would end in a note
    results = conform(replace(SETTINGS, subjects=("fakes:Off",)), explained=False)
    assert (results.verdict, results.explanations, results.notes) == ("NOT CONFORMANT", [], [])


def test_explanations_before_an_error_are_kept(folder, monkeypatch):
    def broken(settings, results, progress):
        yield {"property": "EXACT-03"}
        raise ValueError("later")

    monkeypatch.setattr(runs, "explain", broken)
    results = conform(replace(SETTINGS, subjects=("fakes:Off",)))
    assert results.explanations == [{"property": "EXACT-03"}]


def test_results_are_a_line(folder):
    results = conform(SETTINGS)
    (cell,) = results.cells
    line = f"<Results: CONFORMANT, cases: {cell.cases}, properties judged: 1>"
    assert repr(results) == str(results) == line


def test_a_run_without_a_folder_cannot_go_on():
    with pytest.raises(InputError, match="resume: expected the folder of the run; found none"):
        conform(SETTINGS, resume=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"device": "moon"}, 'device: expected one of "cpu", "gpu", "tpu"'),
        ({"modes": ("f8",)}, 'modes: expected one of "f32", '),
        ({"modes": ()}, "modes: expected at least one; found none"),
        ({"subjects": "torch"}, "subjects: expected a tuple of names; found 'torch'"),
        ({"subjects": ("torch", "torch")}, "subjects: expected each name once"),
        ({"properties": ["WS-01"]}, "properties: expected a tuple of names"),
        ({"examples": -1}, "examples: expected a whole number from 0 on"),
        ({"examples": 10**9}, "examples: expected at most 1,000,000"),
        ({"seed": 2**32}, "seed: expected at most 4294967295"),
        ({"must_offer": "agc"}, "must_offer: expected a tuple of names; found 'agc'"),
        ({"must_offer": ("agc", "agc")}, "must_offer: expected each name once"),
        (
            {"must_offer": ("wsconv",)},
            "must_offer: expected methods of a subject, of ws_conv, activation, ",
        ),
        ({"timeout": 0.0}, "timeout: expected a finite number above 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(changes, message):
    with pytest.raises(InputError) as caught:
        Settings(**changes)
    assert str(caught.value).startswith(message)


def test_faults_are_tried_on_what_runs(folder, monkeypatch):
    """If no column runs, nothing was proved."""
    monkeypatch.setattr(runs, "limits", lambda settings, progress: [])
    settings = Settings(subjects=("fakes:Stillborn",), properties=("EXACT-03",))
    matrix = seed_faults(settings, "out")
    assert matrix.verdict == "NOTHING TRIED"
    assert "No column ran, so that no fault was tried." in (folder / "out/FAULTS.md").read_text()


def test_a_name_that_there_is_not():
    import nfspec.conformance

    with pytest.raises(AttributeError, match="has no attribute 'conforms'"):
        nfspec.conformance.conforms  # noqa: B018
