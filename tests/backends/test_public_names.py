"""Modules of backends are reached as documents write them, with `import nfspec` alone."""

import keras
import pytest

import nfspec


@pytest.mark.parametrize("name", [keras.backend.backend(), "callbacks", "register"])
def test_needs_no_import_but_nfspec(name, monkeypatch):
    monkeypatch.delattr(nfspec.backends, name, raising=False)
    monkeypatch.delattr(nfspec, "backends")
    assert getattr(nfspec.backends, name).__name__ == f"nfspec.backends.{name}"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'jaxx'"):
        nfspec.backends.jaxx  # noqa: B018
