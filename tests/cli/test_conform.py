"""`nfspec conform` and `nfspec replay`: what they print, write and return. tests/conformance has
what they find."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import Results
from nfspec.conformance.cases.target import target
from nfspec.conformance.workers import worker as worker_module
from nfspec.outputs import alone

from local_process import use_this_process

FAKES = Path(__file__).parents[1] / "conformance" / "fake_subjects.py"
CHEAP = ("--properties", "EXACT-03,AGC-01", "--examples", "1")
POOL = next(op for op in target(None).ops if type(op).__name__ == "Pool")
CASE = Case("EXACT-03", regime="integer", op=POOL, shape=(2, 7, 6, 3)).line()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The present folder, in which `fakes:NAME` is a subject."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(FAKES, tmp_path / "fakes.py")
    use_this_process(monkeypatch, tmp_path)
    return tmp_path


def command(*arguments):
    return CliRunner().invoke(app, arguments)


def conform(*arguments, subjects=("Good",)):
    named = [part for name in subjects for part in ("--subject", f"fakes:{name}")]
    return command("conform", *named, *CHEAP, "--out", "out", *arguments)


@pytest.fixture(scope="module")
def on_torch(tmp_path_factory):
    """A run of nfspec's own layers, and where it wrote."""
    folder = tmp_path_factory.mktemp("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = command(
            "conform", "--backends", "torch", "--examples", "1",
            "--properties", "EXACT-03,ACT-01,AGC-01", "--out", "results/of/today",
        )  # fmt: skip
    return done, folder / "results" / "of" / "today"


def test_a_conformant_framework(on_torch):
    done, _ = on_torch
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert re.match(r"CONFORMANT: \d+ cases, worst error / bound 0\.", lines[0])
    head, *table = lines[lines.index("") + 1 :][:4]
    assert head.split() == ["property", "torch/cpu/f32"]
    assert [line.split()[0] for line in table] == ["EXACT-03", "ACT-01", "AGC-01"]
    assert table[0].split() == ["EXACT-03", "0"]
    assert all(0.0 < float(line.split()[1]) <= 1.0 for line in table[1:])
    assert max(map(len, lines)) <= 80
    assert lines[-3:] == [
        f"wrote results/of/today/{name}" for name in ("results.json", "REPORT.md", "report.html")
    ]


def test_progress_goes_to_stderr(on_torch):
    done, _ = on_torch
    assert done.stderr.splitlines() == [
        "f32: starting torch",
        *(f"{name} f32: done" for name in ("EXACT-03", "ACT-01", "AGC-01")),
    ]


def test_the_reports_are_written(on_torch):
    _, out = on_torch
    results = Results.from_json((out / "results.json").read_text())
    assert results.conformant
    assert results.columns[0].facts["backend"] == "torch"
    assert "EXACT-03" in (out / "REPORT.md").read_text()
    assert "EXACT-03" in (out / "report.html").read_text()
    assert (out / "journal.jsonl").exists()


def test_one_that_does_not_conform_fails_with_1(folder):
    done = conform(subjects=("Good", "Off"))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert ["EXACT-03", "0", "bits", "!"] in [line.split() for line in lines]
    assert any("EXACT-03 on fakes:Off/cpu/f32: fail: the bits differ" in line for line in lines)
    assert any(line.startswith(f"cd {folder} && nfspec replay '{{") for line in lines)
    assert lines[0].startswith("NOT CONFORMANT: ")


def test_one_that_crashes_fails_with_1(folder):
    done = conform(subjects=("Good", "Third"))
    assert done.exit_code == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["EXACT-03", "0", "crashed", "0", "!"] in lines


def test_one_that_offers_a_part_and_is_right_in_it(folder):
    done = conform(subjects=("Shy",))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("CONFORMANT IN PART: "))
    assert lines[at + 1] == (
        "Nothing wrong was found in what is offered. fakes:Shy/cpu/f32: 1 of 2 properties not "
        "offered (it has no agc)."
    )
    done = conform("--force", "--must-offer", "pool,agc", subjects=("Shy",))
    assert done.exit_code == 1
    problem = "must-offer agc: fakes:Shy/cpu/f32: AGC-01: fakes:Shy: Shy has no agc"
    assert problem in done.stdout.splitlines()


def test_a_traceback_is_a_line(folder):
    done = conform("--properties", "EXACT-03,ACT-01", subjects=("Raises",))
    assert done.exit_code == 1
    assert "ValueError: no such thing (the report has the traceback)" in done.stdout.splitlines()
    assert "Traceback" not in done.stdout
    report = (folder / "out" / "REPORT.md").read_text()
    assert "<details><summary><code>ValueError: no such thing</code></summary>" in report
    assert "Traceback (most recent call last)" in report


def test_one_that_offers_nothing_that_was_asked_for_fails_with_2(folder):
    done = conform("--properties", "AGC-01", subjects=("Shy",))
    assert done.exit_code == 2
    lines = done.stdout.splitlines()
    assert lines[0] == "NOTHING JUDGED"
    assert ["AGC-01", "-"] in [line.split() for line in lines]


def test_nothing_that_is_installed_fails_with_2(monkeypatch, folder):
    monkeypatch.setattr(worker_module, "missing", lambda name: f"{name} not installed; run: pip")
    done = command("conform", "--backends", "torch,jax", *CHEAP, "--out", "out")
    assert done.exit_code == 2
    assert "torch/cpu/f32: torch: torch not installed; run: pip" in done.stdout.splitlines()


def test_a_subject_that_has_to_be_there(monkeypatch, folder):
    monkeypatch.setattr(worker_module, "missing", lambda name: f"{name} not installed; run: pip")
    arguments = ("--subject", "fakes:Good", "--subject", "jax", *CHEAP, "--out", "out", "--force")
    assert command("conform", *arguments).exit_code == 0
    done = command("conform", *arguments, "--require", "fakes:Good, jax")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        "--require: jax/cpu/f32: jax: jax not installed; run: pip"
    )
    assert command("conform", *arguments, "--require", "fakes:Good").exit_code == 0


def test_a_required_subject_that_was_not_asked_for(folder):
    assert conform("--require", "torch").exit_code == 2


DEVIATION = """\
[[deviation]]
id = "misspelt"
property = "EXACT-3"
subject = "fakes:Good"
device = "cpu"
mode = "f32"
versions = ">=0"
reason = "a property that there is not"
link = "https://example.org/issues/1"
opened = 2026-11-24
expires = 2036-05-24
"""


def test_one_verdict_and_its_reason_wherever_a_run_is_shown(folder):
    """A deviation that names an unknown property is a problem of the run, in every report."""
    (folder / "dev.toml").write_text(DEVIATION)
    done = conform("--deviations", "dev.toml")
    reason = (
        "deviation misspelt: EXACT-3 on fakes:Good/cpu/f32: no property is called EXACT-3; "
        'did you mean "EXACT-03"?'
    )
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert reason in lines and any(line.startswith("NOT CONFORMANT: ") for line in lines)
    data = json.loads((folder / "out" / "results.json").read_text())
    assert (data["verdict"], data["conformant"]) == ("NOT CONFORMANT", False)
    assert data["problems"] == [reason]
    report = (folder / "out" / "REPORT.md").read_text().splitlines()
    assert "**NOT CONFORMANT**" in report
    at = report.index("## What is wrong")
    assert report[at + 2] == f"- {reason}"
    page = (folder / "out" / "report.html").read_text()
    assert '<p class="overall bad">NOT CONFORMANT</p>' in page
    assert "no property is called EXACT-3; did you mean" in page


def test_json(folder):
    done = conform("--json", subjects=("Good", "Off"))
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert data["conformant"] is False
    cells = {(cell["property"], cell["column"]): cell for cell in data["cells"]}
    assert cells["EXACT-03", "fakes:Off/cpu/f32"]["worst"] == "inf"
    assert cells["EXACT-03", "fakes:Good/cpu/f32"]["verdict"] == "pass"
    assert done.stdout.strip() == Path("out/results.json").read_text().strip()


def test_many_columns_are_a_table_of_several_parts(folder):
    done = conform("--mode", "f32,bf16", subjects=("Good", "Shy", "Narrow", "Raises"))
    lines = done.stdout.splitlines()
    heads = [line.split()[1:] for line in lines if line.startswith("property ")]
    assert len(heads) > 1
    # Each column once.
    names = [f"fakes:{name}/cpu" for name in ("Good", "Shy", "Narrow", "Raises")]
    wanted = [f"{name}/{mode}" for mode in ("f32", "bf16") for name in names]
    assert [name for head in heads for name in head] == wanted
    end = max(i for i, line in enumerate(lines) if line.startswith("AGC-01 ")) + 1
    table = lines[lines.index("") + 1 : end]
    assert max(map(len, table)) <= 80


def test_a_spec_of_ones_own(folder):
    done = command(
        "conform", "timm/test_nfnet", "--subject", "fakes:Good", *CHEAP, "--json", "--out", "out"
    )
    data = json.loads(done.stdout)
    assert data["spec"]["name"] == "timm/test_nfnet"
    assert [cell["property"] for cell in data["cells"]] == ["EXACT-03", "AGC-01"]


def test_a_spec_that_is_changed_and_the_line_that_replays_it(folder):
    arguments = ("timm/test_nfnet", "--set", "stages.alpha=0.3", "--properties", "NET-03")
    done = command("conform", *arguments, "--subject", "numpy-source", "--out", "out", "--json")
    (cell,) = Results.from_json(done.stdout).cells
    case = Case.parse(cell.worst_case)
    assert case.spec == "timm/test_nfnet --set stages.alpha=0.3"
    again = command("replay", case.line(), "--subject", "numpy-source")
    assert again.stdout.startswith("numpy-source/cpu/f32: within its bound\n")


def test_a_run_goes_on(folder):
    first = conform("--json")
    again = conform("--json", "--resume")
    cells = [json.loads(done.stdout)["cells"] for done in (first, again)]
    assert cells[0] == cells[1]
    other = conform("--resume", "--seed", "7")
    assert other.exit_code == 2
    assert other.stderr.startswith("--resume: out/journal.jsonl is of a run with other settings; ")


def test_ctrl_c(folder, monkeypatch):
    from nfspec.conformance import runs as module

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", stopped)
    done = conform()
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == (
        "interrupted; go on with the same command and --resume --out out"
    )


REFUSED = {
    ("--mode", "f8"): "--mode: expected some of f32, tf32, bf16, f16; found 'f8'",
    ("--mode", ","): "--mode: expected some of f32, tf32, bf16, f16; found ','",
    ("--device", "moon"): '--device: expected one of "cpu", "gpu", "tpu"; found \'moon\'',
    ("--properties", "X-01"): "--properties: no X-01; expected some of EXACT-01, ",
    ("--backends", "jacks"): "--backends: expected some of jax, torch, tensorflow; found 'jacks'",
    ("--set", "stages.alpha=0.3"): "--set: expected a SPEC to change; found none",
    ("nope",): 'no built-in spec "nope"; ',
    ("--must-offer", "wsconv"): "must_offer: expected methods of a subject, of ws_conv, ",
    ("--resume",): "--resume: out/journal.jsonl does not exist; start without --resume",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_refused(folder, arguments):
    done = command("conform", "--out", "out", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(REFUSED[arguments])


@pytest.mark.parametrize("name", ["nobody", "", "fakes:Nobody", "nowhere:Nobody"])
def test_a_subject_that_there_is_not(folder, name):
    done = command("conform", "--subject", name, *CHEAP, "--out", "out")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(("no subject ", f"subject {name}: "))


def replay(*arguments, subject="Good"):
    return command("replay", CASE, "--subject", f"fakes:{subject}", *arguments)


def test_a_case_again(folder):
    done = replay()
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "fakes:Good/cpu/f32: within its bound"
    assert "bound 0: the same bits were expected; the bits are the same" in lines


def test_a_case_beyond_its_bound_fails_with_1(folder):
    assert replay(subject="Off").exit_code == 1
    done = replay("--fault", "reply-nan")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "fakes:Good/cpu/f32: BEYOND ITS BOUND"


def test_a_case_that_no_subject_answers_fails_with_2(folder):
    done = replay(subject="Always")
    assert done.exit_code == 2
    assert done.stdout.splitlines()[0] == "fakes:Always/cpu/f32: crashed"


@pytest.mark.parametrize(
    "case, options, message",
    [
        ("{", (), "not a case: JSONDecodeError: "),
        ('{"property":"EXACT-3"}', (), 'no property "EXACT-3"; did you mean "EXACT-03"?'),
        (CASE, ("--fault", "nothing"), 'no fault "nothing"; expected one by name, or such as '),
        (CASE, ("--backends", "jacks"), "--backends: expected some of jax, torch, tensorflow; "),
    ],
)
def test_a_case_that_is_refused(case, options, message):
    done = command("replay", case, *options)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


def test_a_device_that_there_is_not(folder):
    done = replay("--device", "moon")
    assert done.exit_code == 2
    assert done.stderr == '--device: expected one of "cpu", "gpu", "tpu"; found \'moon\'\n'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--compile-only: expected --device tpu; found --device cpu"),
        (("--device", "gpu"), "--compile-only: expected --device tpu; found --device gpu"),
        (("--device", "tpu", "--faults"), "--compile-only: nothing is judged, as --faults and "),
        (("--device", "tpu", "--against", "jax", "torch"), "--compile-only: nothing is judged"),
    ],
)
def test_what_cannot_be_compiled_only(options, message, folder):
    done = conform("--compile-only", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(message)


def test_the_kits_own_packages_may_be_absent(monkeypatch, folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = conform()
    assert done.exit_code == 2
    assert "hypothesis, jinja2, packaging, threadpoolctl not installed" in done.stderr


def test_an_earlier_run_is_left_as_it_is_without_force(folder):
    (folder / "out").mkdir()
    journal = folder / "out" / "journal.jsonl"
    journal.write_text("hours of work")
    done = conform()
    assert done.exit_code == 2
    assert "--resume, start anew with --force" in done.stderr
    assert journal.read_text() == "hours of work"


def test_two_runs_do_not_write_to_one_folder(folder):
    with alone(folder / "results"):
        done = conform("--out", "results")
        assert done.exit_code == 2
        assert "is at work there; wait for it, or give another --out" in done.stderr
    assert not (folder / "results").exists()
