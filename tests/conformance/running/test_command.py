"""The command that runs a case again: where it is pasted makes no difference."""

import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.command import command_of, needed_folder, replay_command
from nfspec.conformance.workers.worker import Worker

POOL = PROPERTIES["EXACT-03"].cases(target(None))[0]


def of(case=POOL, subject="torch", device="cpu", timeout=600.0, fault=""):
    return command_of(case, Worker(subject, device, case.mode, timeout, fault))


def test_all_that_decides_the_answer_is_in_it():
    assert of() == f"nfspec replay {shlex.quote(POOL.line())} --backends torch"
    assert of(subject="timm").endswith(" --subject timm")
    assert of(device="gpu").endswith(" --backends torch --device gpu")
    assert of(timeout=5.0, fault="reply-nan").endswith(" --timeout 5 --fault reply-nan")
    narrow = replace(POOL, mode="bf16")
    assert Case.parse(shlex.split(of(narrow))[2]) == narrow


@pytest.mark.parametrize("spec", ['it\'s a "spec"; $HOME `x` \\ é\n.toml', "x" * 40_000])
def test_a_shell_takes_it_apart_as_it_was_put_together(spec):
    case = Case("NET-01", spec=spec)
    command = replay_command(case.line(), "my mod:A'b", "gpu")
    assert "\n" not in command
    shown = f'nfspec() {{ for word in "$@"; do printf \'%s\\0\' "$word"; done; }}; {command}'
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    verb, line, *options = done.stdout.split("\0")[:-1]
    assert (verb, options) == ("replay", ["--subject", "my mod:A'b", "--device", "gpu"])
    assert Case.parse(line) == case


def test_the_folder_is_there_where_a_name_depends_on_it(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert needed_folder(["torch", "timm", "mine:Port", "/else/mine.py:Port"], "nfnet-f0") == ""
    (folder / "mine.py").write_text("")
    (folder / "ours").mkdir()
    for name in ("mine:Port", "ours.port:Port", "lib/port.py:Port", "port.pkl"):
        assert needed_folder(["torch", name]) == str(folder)
    assert needed_folder(["torch"], "moth.toml") == str(folder)
    assert needed_folder(["torch"], str(folder / "moth.toml")) == ""
    line = of(subject="mine:Port")
    assert line.startswith(f"cd '{folder}' && nfspec replay ")


def test_a_line_of_a_report_shows_the_failure_from_an_empty_folder(folder, tmp_path_factory):
    """The shell, the installed command, and a subject beside which the run was made."""
    from nfspec.conformance.runs import conform

    from .small_runs import good, subjects

    results = conform(good(subjects=subjects("Off"), properties=("EXACT-03",), examples=0), "out")
    (cell,) = results.cells
    report = (folder / "out" / "REPORT.md").read_text()
    (line,) = {each for each in report.splitlines() if "nfspec replay" in each}
    assert line in cell.message
    called = f'nfspec() {{ {shlex.quote(sys.executable)} -P -m nfspec "$@"; }}; {line}'
    empty = tmp_path_factory.mktemp("empty")
    done = subprocess.run(["bash", "-c", called], capture_output=True, text=True, cwd=empty)
    assert done.returncode == 1, done.stderr
    assert "fakes:Off/cpu/f32: BEYOND ITS BOUND" in done.stdout
    assert line in done.stdout
    assert list(empty.iterdir()) == []
