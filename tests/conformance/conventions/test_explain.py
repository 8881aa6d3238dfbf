"""Conventions that explain a failure, with subjects from a module of one's own."""

import pytest

from nfspec.conformance.cases.results import Results
from nfspec.conformance.conventions import explain as module
from nfspec.conformance.conventions.explain import explain
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings

# Three convs in NumPy: one keeps the conventions of a spec, one those of timm without a line of
# timm's, and one centres each output's input channels apart, which no convention does.
MINE = """
import numpy as np

from nfspec.reference.operations import conv


class Right:
    framework = "numpy"
    eps, rule = 1e-4, staticmethod(lambda v, n, eps: np.maximum(n * v, eps))

    def __init__(self, mode):
        pass

    def centre(self, w):
        return w - w.mean((0, 1, 2))

    def ws_conv(self, op):
        def function(x, kernel, gain, bias):
            d = self.centre(np.float64(kernel))
            n = d[..., 0].size
            scale = op.gamma * gain / np.sqrt(self.rule((d * d).mean((0, 1, 2)), n, self.eps))
            return conv(np.float64(x), d * scale, *op.sliding) + bias

        return function


class Added(Right):
    eps, rule = 1e-6, staticmethod(lambda v, n, eps: n * (v + eps))


class Wrong(Right):
    def centre(self, w):
        return w - w.mean((0, 1))
"""
SPEC = """\
schema = "nfspec/1"
name = "mine"
extends = "timm/test_nfnet"

[ws]
eps = 1e-4
eps_rule = "max"
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run of the three classes of a module, and what explains it."""
    folder = tmp_path_factory.mktemp("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "mine.py").write_text(MINE)
        (folder / "spec.toml").write_text(SPEC)
        subjects = ("mine:Right", "mine:Added", "mine:Wrong")
        settings = Settings("spec.toml", subjects, examples=2, properties=("WS-01", "ACT-01"))
        results = run(settings)
        steps: list[str] = []
        told = explain(settings, results, lambda results, status: steps.append(status.text))
        entries = list(told)
    return results, entries, steps


def test_a_subject_of_a_module_with_one_method(judged):
    results, _, _ = judged
    verdicts = {(c.property, c.column.split("/")[0]): c.verdict for c in results.cells}
    assert verdicts == {
        ("WS-01", "mine:Right"): "pass",
        ("WS-01", "mine:Added"): "fail",
        ("WS-01", "mine:Wrong"): "fail",
        **{("ACT-01", f"mine:{name}"): "not offered" for name in ("Right", "Added", "Wrong")},
    }


def test_another_convention_is_found(judged):
    _, entries, _ = judged
    (entry,) = (e for e in entries if e["subject"] == "mine:Added")
    assert entry["fields"] == {"ws.eps_rule": "add", "ws.eps": 1e-6}
    assert (entry["property"], entry["asked"]) == ("WS-01", "spec.toml")
    assert entry["ratio_after"] <= 1.0 < 100.0 < entry["ratio_before"]


def test_no_convention_explains_a_mistake(judged):
    _, entries, _ = judged
    (entry,) = (e for e in entries if e["subject"] == "mine:Wrong")
    assert entry["fields"] == {}
    assert entry["ratio_after"] == entry["ratio_before"] > 100.0


def test_what_passes_is_not_explained_and_progress_is_told(judged):
    _, entries, steps = judged
    begun = [step for step in steps if step.endswith("trying other conventions")]
    assert len(entries) == len(begun) == 2
    assert steps[0] == "WS-01 on mine:Added/cpu/f32: trying other conventions"


def test_nfspecs_own_columns_are_left_alone(monkeypatch):
    monkeypatch.setattr(module, "started", None)  # would start workers
    results = Results({}, None, [], [], [])
    assert list(explain(Settings(), results)) == []
