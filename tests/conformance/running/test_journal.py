"""Runs that were cut short, and go on."""

import json
import shutil
from math import inf

import pytest

from nfspec.conformance.running.journal import FINISHED, JOURNAL
from nfspec.conformance.running.run import run
from nfspec.errors import InputError

from ..fakes import lives, prepare, starts
from .small_runs import IDS, good, ratios, subjects


def interrupt_after(*finished):
    """A progress callback that stops the run once these are done, as Ctrl-C would."""
    left = [f"{name} f32: done" for name in finished]

    def progress(results, status):
        if status.text in left:
            left.remove(status.text)
            if not left:
                raise KeyboardInterrupt

    return progress


def interrupted(folder, *finished, resume=False, **changes):
    with pytest.raises(KeyboardInterrupt):
        run(good(**changes), folder, resume=resume, progress=interrupt_after(*finished))


@pytest.fixture(scope="module")
def cut_short(tmp_path_factory):
    """Folders of runs that were interrupted after the first property, and after the second."""
    folders = []
    for finished in (("EXACT-03",), ("EXACT-03", "ACT-01")):
        folders.append(tmp_path_factory.mktemp("cut"))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folders[-1])
            prepare(folders[-1])
            interrupted(folders[-1], *finished)
    return folders


@pytest.fixture
def after_one(folder, cut_short):
    return shutil.copytree(cut_short[0], folder, dirs_exist_ok=True)


@pytest.fixture
def after_two(folder, cut_short):
    return shutil.copytree(cut_short[1], folder, dirs_exist_ok=True)


def journal(folder):
    """The properties of the cells that are on the disk."""
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    return [line["cell"]["property"] for line in lines[1:] if line != FINISHED]


def resumed(folder, **changes):
    """The results, and the properties that were run again."""
    told = []
    results = run(
        good(**changes),
        folder,
        resume=True,
        progress=lambda results, status: told.append(status.text),
    )
    ran = [status.split()[0] for status in told if status.endswith("done")]
    return results, ran


def test_an_interrupted_run_goes_on(folder, monkeypatch):
    whole = run(good())
    interrupted(folder, "EXACT-03", "ACT-01")
    assert journal(folder) == ["EXACT-03", "ACT-01"]
    assert not any(lives(pid) for _, pid in starts(folder))
    before = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()[1:]]
    results, ran = resumed(folder)
    assert ran == ["POOL-01", "AGC-01"]
    assert ratios(results) == ratios(whole)
    assert [c.seconds for c in results.cells[:2]] == [b["cell"]["seconds"] for b in before]
    assert len(results.columns) == 1 and results.conformant
    assert journal(folder) == list(IDS)


def test_a_finished_run_has_nothing_to_go_on_with(folder):
    whole = run(good(properties=IDS[:1]), folder)
    results, ran = resumed(folder, properties=IDS[:1])
    assert ran == []
    assert results.cells == whole.cells


def test_a_half_written_line_is_left_out(after_two):
    path = after_two / JOURNAL
    text = path.read_text()
    path.write_text(text[:-40])  # into the cell of ACT-01
    results, ran = resumed(after_two)
    assert ran == ["ACT-01", "POOL-01", "AGC-01"]
    assert [cell.property for cell in results.cells] == list(IDS)


def test_a_column_that_was_done_is_not_run_again_for_one_that_was_not(folder):
    names = subjects("Good", "Shy")
    interrupted(folder, "EXACT-03", "ACT-01", subjects=names)
    path = folder / JOURNAL
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")  # all but ACT-01 of the second
    results, ran = resumed(folder, subjects=names)
    assert ran == ["ACT-01", "POOL-01", "AGC-01"]
    places = [(cell.property, cell.column) for cell in results.cells]
    assert len(places) == len(set(places)) == len(IDS) * 2
    assert json.loads(lines[-2])["cell"]["seconds"] == results.cells[2].seconds


def test_a_run_may_go_on_twice_after_a_half_written_line(after_two):
    path = after_two / JOURNAL
    path.write_text(path.read_text()[:-40])
    interrupted(after_two, "ACT-01", resume=True)
    _, ran = resumed(after_two)
    assert ran == ["POOL-01", "AGC-01"]


def test_cells_of_each_verdict_are_kept(folder):
    """An infinite ratio too, which JSON has not."""
    names = subjects("Off", "Raises", "Shy")
    interrupted(folder, "EXACT-03", "ACT-01", subjects=names)
    results, _ = resumed(folder, subjects=names)
    by_subject = {
        (c.column.split("/")[0].removeprefix("fakes:"), c.property): c for c in results.cells
    }
    assert by_subject["Off", "EXACT-03"].worst == inf
    assert by_subject["Raises", "ACT-01"].verdict == "error"
    assert by_subject["Shy", "AGC-01"].verdict == "not offered"


@pytest.mark.parametrize("changes", [{"seed": 1}, {"examples": 3}, {"properties": IDS[:2]},
                                     {"source": "timm/test_nfnet"}])  # fmt: skip
def test_a_run_with_other_settings_does_not_go_on(after_one, changes):
    kept = (after_one / JOURNAL).read_text()
    with pytest.raises(InputError, match=r"--resume: .* is of a run with other settings; "):
        run(good(**changes), after_one, resume=True)
    assert (after_one / JOURNAL).read_text() == kept


def spoilt(folder, change):
    """The error about a journal whose cell of EXACT-03 is changed."""
    path = folder / JOURNAL
    first, line = path.read_text().splitlines()
    entry = json.loads(line)
    change(entry["cell"])
    path.write_text(f"{first}\n{json.dumps(entry)}\n")
    with pytest.raises(InputError, match=r"^--resume: .*start anew with --force$") as caught:
        run(good(), folder, resume=True)
    return str(caught.value)


def test_a_journal_whose_worst_case_is_too_large_does_not_go_on(after_one):
    said = spoilt(after_one, lambda cell: cell["worst_case"].update(shape=[2000, 2000, 100, 16]))
    assert "shape [2000, 2000, 100, 16] has 6,400,000,000 elements; at most 67,108,864" in said


def test_a_journal_with_a_line_without_an_end_does_not_go_on(after_one):
    said = spoilt(after_one, lambda cell: cell.update(message="x" * 5_000_000))
    assert "a line of more than 4,194,304 bytes, which no run writes" in said


def test_a_run_that_never_began_does_not_go_on(folder):
    with pytest.raises(InputError, match=r"--resume: .*journal.jsonl does not exist; "):
        run(good(), folder, resume=True)


def test_without_resume_it_begins_anew(after_one):
    results = run(good(properties=IDS[1:2]), after_one)
    assert [cell.property for cell in results.cells] == ["ACT-01"]
    assert journal(after_one) == ["ACT-01"]
