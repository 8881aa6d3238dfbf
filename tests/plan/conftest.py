"""Specs that extend another, resolved."""

import pytest

from nfspec.language.loader import load
from nfspec.plan.resolver import resolve

from specs import HEAD, write


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Resolve a spec that extends another and changes what is given."""
    monkeypatch.chdir(tmp_path)

    def resolved(text, parent="nfnet-f0"):
        return resolve(load(write(HEAD.replace("nfnet-f0", parent) + text)))

    return resolved
