"""Programs that JAX compiles are kept in the user's cache, by kinds of processors."""

import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from nfspec.files import cache_folder
from nfspec.training import frameworks

NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in NAMES:
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "jax", raising=False)


def test_programs_are_kept_in_the_users_cache():
    frameworks._keep_programs()
    folder = os.environ[NAMES[0]]
    assert folder.startswith(str(cache_folder("jax"))) and os.environ[NAMES[1]] == str(2**31)
    assert frameworks._processor() == frameworks._processor()


def test_what_the_user_says_stays(monkeypatch):
    monkeypatch.setenv(NAMES[0], "mine")
    frameworks._keep_programs()
    assert os.environ[NAMES[0]] == "mine"


@pytest.mark.parametrize("absent", ["filelock", "jax"])
def test_nothing_is_kept_without_jax_or_what_bounds_it(absent, monkeypatch):
    """PyTorch brings filelock, so that JAX alone may be absent: `start` says so."""
    found, version = importlib.util.find_spec, frameworks.version

    def installed(name):
        if name == absent:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(frameworks, "version", installed)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else found(name)
    )
    frameworks._keep_programs()
    assert not {*NAMES} & {*os.environ}


@pytest.mark.parametrize(("jax", "kept"), [("0.5.0", False), ("0.10.0", True), ("1.0.0rc1", True)])
def test_nothing_is_kept_by_versions_that_read_it_wrongly(jax, kept, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(frameworks, "version", lambda name: jax)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    frameworks._keep_programs()
    assert (NAMES[0] in os.environ) == kept


def test_other_processors_have_other_folders(monkeypatch):
    """A program for a processor may use what another does not have."""
    own = frameworks._processor()
    monkeypatch.setattr(frameworks.Path, "read_text", lambda self, encoding: "flags : sse2")
    assert frameworks._processor() != own
