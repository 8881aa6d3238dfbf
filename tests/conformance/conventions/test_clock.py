"""The end of a search that takes too long, and its progress."""

import pytest

from nfspec.conformance.conventions import clock as module
from nfspec.conformance.conventions.clock import Clock, OutOfTime

from . import wrong_subjects as wrong
from .local import SPEC, explanations


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SPEC)
    return path


def test_a_search_ends_and_costs_its_own_explanation_alone(spec, monkeypatch):
    """The second property is explained in its own time."""
    right = Clock.tick

    def tick(self):
        if self.tried > 100:
            raise OutOfTime("no explanation in 300 s of computing")
        right(self)

    monkeypatch.setattr(Clock, "tick", tick)
    _, entries = explanations(wrong.OddActivation, spec, ("ACT-01",))
    assert entries["ACT-01"]["error"] == "no explanation in 300 s of computing"
    assert entries["ACT-01"]["fields"] == {}
    _, entries = explanations(wrong.OtherGelu, spec, ("ACT-01",))
    assert entries["ACT-01"]["fields"] == {"activation.kind": "gelu_erf"}


def test_the_time_is_that_of_computing():
    with pytest.raises(OutOfTime, match="no explanation in 0 s of computing, after 1 attempts"):
        Clock(most=0.0, begun=-1.0).tick()


def test_progress_is_told_every_few_seconds(monkeypatch):
    told = []
    monkeypatch.setattr(module, "EVERY", -1.0)
    Clock(told.append).tick()
    assert told == ["1 attempts, 0 of at most 300 s"]
