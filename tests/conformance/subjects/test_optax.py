"""optax's clipping as a subject: the original's rule, whatever is asked."""

import pytest

from nfspec.conformance.conventions import explain as explaining
from nfspec.conformance.conventions.explain import explain
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.subjects.optax import Optax
from nfspec.conformance.workers import frameworks
from nfspec.errors import BackendError

from ..conventions.local import within
from .failing import failing

# timm's smallest network, clipped as the original clips.
SQUEEZED = """\
schema = "nfspec/1"
name = "squeezed"
extends = "timm/test_nfnet"

[agc]
unit = "squeeze"
"""
IDS = ("EXACT-04", "AGC-01", "AGC-02", "AGC-03", "AGC-04", "AGC-05")


def test_conforms_to_the_originals_rule(tmp_path):
    path = tmp_path / "squeezed.toml"
    path.write_text(SQUEEZED)
    results = run(Settings(str(path), ("optax",), examples=3, properties=(*IDS, "ACT-01")))
    verdicts = {cell.property: cell.verdict for cell in results.cells}
    assert verdicts == {**dict.fromkeys(IDS, "pass"), "ACT-01": "not offered"}
    facts = results.columns[0].facts
    assert facts["version"].split(".")[:2] == ["0", "2"] and "framework_version" in facts


def test_asked_for_timms_rule(monkeypatch):
    """In this process, as the run above was in one of its own; optax needs no Keras."""
    monkeypatch.setattr(frameworks, "select", lambda name: None)
    monkeypatch.setattr(explaining, "started", within)
    settings = Settings("timm/test_nfnet", ("optax",), examples=0, properties=("EXACT-04",))
    (entry,) = explain(settings, failing("optax", "jax", settings.properties))
    assert entry["fields"] == {"agc.unit": "squeeze"}
    assert entry["ratio_before"] > 1.0 >= entry["ratio_after"]


def test_modes():
    with pytest.raises(NotOffered, match="mode f16"):
        Optax("f16")


def test_without_optax(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install optax"):
        Optax("f32")
