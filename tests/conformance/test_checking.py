"""`check`: a run in a call, of a class, an object or a name, which raises if it is not right."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nfspec.conformance import check
from nfspec.errors import BackendError, InputError
from nfspec.reference import operations as ops

ONE = {"properties": ("EXACT-03",), "examples": 0}
SCALE = 1.0


class Pools:
    framework = "numpy"

    def __init__(self, mode):
        self.scale = SCALE

    def pool(self, op):
        return lambda x: self.scale * ops.pool(op, x).astype("float32")


class Off(Pools):
    def __init__(self, mode):
        self.scale = 1.5


def replayed(text, folder):
    """Output of the first replay line of a text, run as it stands in an empty folder."""
    line = re.search(r"nfspec replay .*", text).group()
    words = [str(Path(sys.executable).with_name("nfspec")), *shlex.split(line)[1:]]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_a_class_that_is_wrong():
    with pytest.raises(AssertionError) as caught:
        check(Off, **ONE)
    text = str(caught.value)
    assert "NOT CONFORMANT" in text and "EXACT-03" in text
    assert f"--subject {Path(__file__)}:Off" in text
    assert text.endswith('give check(..., folder="reports").')


def test_progress_is_told_on_request(capsys):
    check(Pools, **ONE)
    assert capsys.readouterr().err == ""  # which is no terminal
    check(Pools, progress=True, **ONE)
    assert "EXACT-03 f32: done" in capsys.readouterr().err


def test_a_class_made_in_a_function_and_its_case_again(tmp_path, monkeypatch):
    """It is sent with what it names; its file is kept, as the line to replay a case names it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    factor = 2.0

    class Local(Pools):
        def __init__(self, mode):
            super().__init__(mode)
            self.scale *= factor

    with pytest.raises(AssertionError) as caught:
        check(Local, **ONE)
    assert [path.name for path in tmp_path.glob("*/*")] == ["Local.pkl"]
    (tmp_path / "empty").mkdir()
    done = replayed(str(caught.value), tmp_path / "empty")
    assert done.returncode == 1, done.stderr
    assert "BEYOND ITS BOUND" in done.stdout


def test_an_object_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = Off("f32")
    made.scale = 1.0
    assert check(made, **ONE).verdict == "CONFORMANT"
    assert list(tmp_path.iterdir()) == []


def test_reports_replace_those_of_an_earlier_check_and_nothing_else(tmp_path):
    out = tmp_path / "reports"
    both = {"properties": ("EXACT-03", "EXACT-04"), "examples": 0, "folder": out}
    assert check(Pools, **both).verdict == "CONFORMANT IN PART"
    with pytest.raises(AssertionError) as caught:
        check(Pools, must_offer=("agc",), **both)
    assert "Pools has no agc" in str(caught.value)
    assert f"wrote {out / 'REPORT.md'}" in str(caught.value)
    assert "NOT CONFORMANT" in (out / "REPORT.md").read_text()
    (tmp_path / "REPORT.md").write_text("mine")
    with pytest.raises(InputError, match="left as it is"):
        check(Pools, folder=tmp_path, **ONE)
    assert (tmp_path / "REPORT.md").read_text() == "mine"


def test_what_is_no_subject():
    with pytest.raises(InputError, match="expected the attribute `framework`, one of jax, "):
        check(object())
    with pytest.raises(InputError, match="found a function"):
        check(replayed)
    made = Pools("f32")
    made.file = (lambda: (yield))()
    with pytest.raises(InputError, match="cannot be sent to the process that tests it: "):
        check(made, **ONE)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "cloudpickle" or None)
    with pytest.raises(BackendError, match="run: pip install cloudpickle"):
        from nfspec.conformance import conform  # noqa: F401
