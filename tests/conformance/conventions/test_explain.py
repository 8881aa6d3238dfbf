"""Which conventions explain a failure: the search alone, and subjects of one's own in a module."""

import pytest

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.results import Results
from nfspec.conformance.cases.target import CONV, SE, target
from nfspec.conformance.conventions import explain as module
from nfspec.conformance.conventions.explain import (
    CANDIDATES,
    altered_op,
    altered_spec,
    explain,
    smallest,
)
from nfspec.conformance.running.run import Settings, run
from nfspec.language.loader import load
from nfspec.plan import ECA, Activation, Pool

# Four convs: one keeps the conventions of a spec, one those of timm without a line of timm's, one
# forgets to centre, and one cannot tell channels apart by any convention.
MINE = """
import torch
from torch.nn import functional as F


class Right:
    framework = "torch"
    eps, rule = 1e-4, staticmethod(lambda v, n, eps: torch.clamp(n * v, min=eps))

    def __init__(self, mode):
        pass

    def centre(self, w):
        return w - w.mean((0, 1, 2))

    def ws_conv(self, op):
        pads = {"same": op.kernel // 2, "symmetric": op.kernel // 2}[op.padding]

        def function(x, kernel, gain, bias):
            d = self.centre(kernel)
            n = d[..., 0].numel()
            w = d * (op.gamma * gain * torch.rsqrt(self.rule((d * d).mean((0, 1, 2)), n, self.eps)))
            y = F.conv2d(
                x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), bias, op.stride, pads, 1, op.groups
            )
            return y.permute(0, 2, 3, 1)

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
        entries = explain(settings, results, lambda results, status: steps.append(status))
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
    assert len(entries) == len(steps) == 2
    assert steps[0] == "WS-01 on mine:Added/cpu/f32: trying other conventions"


def test_nfspecs_own_columns_are_left_alone(monkeypatch):
    monkeypatch.setattr(module, "columns", None)  # would start workers
    results = Results({}, None, [], [], [])
    assert explain(Settings(), results) == []


def test_the_smallest_set_and_no_part_of_it():
    """Two changes are needed, of which one has two fields and one of those is for nothing."""
    moves = [{"a": 1, "b": 1}, {"c": 1}, {"d": 1}, {"d": 2}]

    def excess(fields):
        return 3.0 - 2.0 * (fields.get("a") == 1) - (fields.get("d") == 2)

    assert smallest(excess, moves) == {"a": 1, "d": 2}
    assert smallest(lambda fields: 1.0, moves) is None


SPEC_F0 = load("nfnet-f0")
GELU = Activation("op", ("x",), "gelu_tanh", 0.01, 1.7015043497085571, 0.9, "after")


@pytest.mark.parametrize(
    ("op", "fields", "changed"),
    [
        (CONV, {"ws.eps": 1e-5, "ws.ddof": 1}, {"eps": 1e-5, "ddof": 1}),
        (CONV, {"conv.padding": "symmetric"}, {"padding": "symmetric"}),
        (CONV, {"activation.gamma_at": "weight"}, {"gamma": 1.7015043497085571}),
        (GELU, {"activation.kind": "gelu_erf"}, {"kind": "gelu_erf"}),
        (GELU, {"activation.gamma_at": "weight"}, {"gamma": 1.0}),
        (GELU, {"activation.gamma": "exact"}, {"gamma": 1.7009165617}),
        (GELU, {"activation.slope": 0.2}, {}),
        (Pool("op", ("x",), "max", 3, 2, "same"), {"conv.padding": "symmetric"},
         {"padding": "symmetric"}),
        (Pool("op", ("x",), "avg", 2, 2, "same"), {"conv.padding": "symmetric"}, {}),
        (SE, {"attention.gain": 1.0}, {"gain": 1.0}),
        (SE, {"se.gamma": "deepmind"}, {"gamma": 1.7139588594436646}),
        (ECA("op", ("x",), 8, 3, 2.0), {"attention.gain": 1.0}, {"gain": 1.0}),
        (Clip("gain", (8,), "squeeze", 0.01, 1e-3), {"agc.unit": "timm"}, {"unit": "timm"}),
    ],
)  # fmt: skip
def test_operations_under_other_conventions(op, fields, changed):
    other = altered_op(op, fields, SPEC_F0)
    for name, value in vars(op).items():
        wanted = changed.get(name, value)
        if isinstance(wanted, float):
            assert getattr(other, name) == pytest.approx(wanted, rel=1e-9)
        else:
            assert getattr(other, name) == wanted


def test_every_candidate_is_a_field_of_the_language():
    assert target(None).spec == SPEC_F0
    for fields in CANDIDATES:
        altered_spec(SPEC_F0, fields)
    silu = load("timm/test_nfnet")
    assert altered_spec(silu, {"activation.kind": "gelu_erf"}).digest == silu.digest
