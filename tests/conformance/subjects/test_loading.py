"""Subjects by name, and what cannot be one."""

import pickle
import sys
from pathlib import Path

import pytest

from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.subjects.loading import SHIPPED, checked, in_mode, load, place
from nfspec.errors import InputError

SUBJECT = """
class Some:
    framework = "numpy"

    def __init__(self, mode):
        self.mode = mode

    class Inner:
        framework = "jax"

made = Some("f32")
"""


class Some:
    framework = "numpy"

    def __init__(self, mode):
        self.mode = mode


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The present folder; what is imported is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_places():
    assert place("torch") == SHIPPED["torch"]
    for name in ("mine:Right", "/folder/mine.py:Right", "/folder/mine.pkl"):
        assert place(name) == name
    text = message(place, "jax-plane")
    assert text.startswith('no subject "jax-plane"; expected one of jax, ')
    assert text.endswith(', or module:object, or file.py:object; did you mean "jax-plain"?')


def test_a_class_or_an_object_of_a_module():
    assert load(f"{__name__}:Some") is Some
    Path("mine.py").write_text(SUBJECT)
    made = load("mine:made")
    assert (type(made).__name__, made.mode) == ("Some", "f32")
    assert load("mine:Some.Inner").framework == "jax"


def test_a_file(folder):
    (folder / "there").mkdir()
    (folder / "there" / "mine.py").write_text(f"import beside\n{SUBJECT}")
    (folder / "there" / "beside.py").write_text("")
    for path in ("there/mine.py", folder / "there" / "mine.py"):
        assert load(f"{path}:Some").__name__ == "Some"


def test_a_file_may_have_the_name_of_a_module(folder):
    (folder / "numpy.py").write_text(f"import numpy\nassert numpy.float32\n{SUBJECT}")
    assert load("numpy.py:Some").framework == "numpy"


def test_a_file_of_a_package(folder):
    inner = folder / "package" / "inner"
    inner.mkdir(parents=True)
    for path in (inner.parent, inner):
        (path / "__init__.py").write_text("")
    (inner / "mine.py").write_text("from ..base import Some")
    (inner.parent / "base.py").write_text(SUBJECT)
    assert load(f"{inner / 'mine.py'}:Some").__module__ == "package.base"


def test_a_file_of_a_package_that_another_one_hides(folder):
    inner = folder / "json"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "decoder.py").write_text(SUBJECT)
    text = message(load, f"{inner / 'decoder.py'}:Some")
    assert "is the module json.decoder of a package, and another package of that name" in text


def test_what_cannot_be_loaded(folder):
    Path("mine.py").write_text(SUBJECT)
    Path("typo.py").write_text("def f(:\n")
    Path("needs.py").write_text("import no_such_module_at_all\n")
    Path("raises.py").write_text("x = 1\ny = x / 0\n")
    for name, text in {
        "nowhere:Some": f"no module nowhere: it is neither installed nor in {folder}; install",
        "nowhere.at.all:Some": "no module nowhere: it is neither",
        "nowhere.py:Some": f"no file {folder / 'nowhere.py'}",
        "nowhere.pkl": "no such file",
        "mine:Sone": 'mine has no Sone; did you mean "Some"?',
        "mine.py:Some.Outer": "mine.py has no Some.Outer",
        "typo:Some": "importing it failed: SyntaxError: invalid syntax (typo.py, line 1)",
        "needs.py:Some": "importing it failed: ModuleNotFoundError: No module named 'no_such_modu",
        "needs:Some": f"no_such_module_at_all' ({folder / 'needs.py'}, line 1)",
        "raises.py:Some": f"ZeroDivisionError: division by zero ({folder / 'raises.py'}, line 2)",
    }.items():
        told = message(load, name)
        assert told.startswith(f"subject {name}: ")
        assert text in told
    for name in ("mine:", ":Some"):
        assert message(load, name).endswith("expected module:object or file.py:object")


def test_what_is_no_subject():
    expected = (
        "mine: expected the attribute `framework`, one of jax, torch, tensorflow, mlx or numpy, "
    )
    assert message(checked, object(), "mine").startswith(expected)
    assert message(checked, object(), "mine").endswith("; it has none")

    class MXNet:
        framework = "mxnet"

    assert message(checked, MXNet, "mine").endswith("; it has 'mxnet'")
    assert message(checked, message, "mine").endswith("or an object; found a function")
    assert message(checked, sys, "mine").endswith("or an object; found a module")
    for subject in (Some, Some("f32")):
        assert checked(subject, "mine") is subject


def test_a_pickle_and_the_folders_that_it_is_imported_from(folder):
    there = folder / "there"
    there.mkdir()
    (there / "elsewhere.py").write_text(SUBJECT)
    sys.path.append(str(there))
    data = pickle.dumps(load("elsewhere:made"))
    sys.path.remove(str(there))
    del sys.modules["elsewhere"]
    Path("made.pkl").write_bytes(pickle.dumps(([str(there)], data)))
    assert load("made.pkl").mode == "f32"
    Path("made.pkl").write_bytes(pickle.dumps(([], b"not one")))
    assert message(load, "made.pkl").startswith("subject made.pkl: importing it failed: Unpickling")


def test_a_class_is_called_with_the_mode_and_an_object_is_used_as_it_is():
    assert in_mode(Some, "bf16", "mine").mode == "bf16"
    made = Some("f32")
    assert in_mode(made, "f32", "mine") is made
    with pytest.raises(NotOffered, match="f32 alone, or in those of its attribute `modes`"):
        in_mode(made, "bf16", "mine")
    made.modes = ("f32", "bf16")
    assert in_mode(made, "bf16", "mine") is made


def test_a_class_that_takes_no_mode():
    class Modeless:
        framework = "numpy"

    class Two(Some):
        def __init__(self, mode, width):
            super().__init__(mode)

    for kind in (Modeless, Two):
        text = message(in_mode, kind, "f32", "mine")
        assert text.startswith(f"subject mine: {kind.__name__} cannot be called with one argument")
        assert text.endswith("write `def __init__(self, mode)`, or give an object made already")
