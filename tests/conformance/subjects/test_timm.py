"""timm as a subject: conformant on its own conventions, and explained on the original's."""

import numpy as np
import pytest

from nfspec import reference
from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.target import SE, plan_of
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.conventions import explain as explaining
from nfspec.conformance.conventions.explain import explain
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.subjects.timm import Timm
from nfspec.conformance.workers import frameworks
from nfspec.conformance.workers.frameworks import torch as framework
from nfspec.errors import BackendError
from nfspec.language.loader import load
from nfspec.plan import ECA, Activation, Pool
from nfspec.plan.resolver import resolve
from nfspec.reference.rounding import Rounding

import standin  # noqa: F401  (it imports timm)
from ..conventions.local import within
from .failing import failing

OURS = (
    "EXACT-02", "EXACT-03", "EXACT-04", "MODE-01", "WS-01", "WS-02", "ACT-01", "ACT-02",
    "POOL-01", "SE-01", "SE-02", "AGC-01", "WS-03", "AGC-02", "AGC-03", "AGC-04", "AGC-05",
    "BLOCK-01", "NET-01",
)  # fmt: skip
# timm's smallest network under another spec of its name.
DEEPMINDS = """\
schema = "nfspec/1"
name = "timm/test_nfnet"
extends = "timm/test_nfnet"

[stem]
padding = "same"

[conv]
padding = "same"

[ws]
eps = 1e-4
eps_rule = "max"

[agc]
unit = "squeeze"
"""
WS_FIELDS = {"ws.eps_rule": "add", "ws.eps": 1e-5}


@pytest.fixture(autouse=True)
def without_keras(monkeypatch):
    """The kit imports Keras, which timm does not need, wherever Keras could run."""
    monkeypatch.setattr(frameworks, "select", lambda name: None)


# The cases that every run has, of each operation in each regime; and drawn ones of the same.
@pytest.mark.parametrize("examples", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_conforms_to_its_own_conventions(monkeypatch, examples):
    ours = (*OURS, "NET-03")
    settings = Settings("timm/test_nfnet", ("timm",), examples=examples, properties=ours)
    results = run(settings, workers_of=within)
    verdicts = {cell.property: cell.verdict for cell in results.cells}
    in_part = {"BLOCK-01": "pass in part", "NET-03": "not offered"}  # the network cut down
    assert verdicts == {**dict.fromkeys(OURS, "pass"), **in_part}
    message = results.cell("NET-03", "timm/cpu/f32").message
    assert "timm has no model for timm/test_nfnet-reduced" in message
    facts = results.columns[0].facts
    assert facts["version"].startswith("1.") and facts["framework_version"].startswith("2.")
    monkeypatch.setattr(explaining, "started", within)
    assert list(explain(settings, results)) == []


# Conventions of the whole network are those of a block, with the stem's padding.
ASKED = ("WS-01", "EXACT-02", "EXACT-04", "WS-04", "BLOCK-01")  # EXACT-02 passes


@pytest.mark.parametrize(
    "ids", [ASKED, pytest.param((*ASKED, "NET-01"), marks=pytest.mark.slow)], ids=["", "network"]
)
def test_asked_for_the_originals_conventions(tmp_path, monkeypatch, ids):
    path = tmp_path / "asked.toml"
    path.write_text(DEEPMINDS)
    settings = Settings(str(path), ("timm",), examples=0, properties=ids)
    monkeypatch.setattr(explaining, "started", within)
    explained = list(explain(settings, failing("timm", "torch", ids)))
    entries = {entry["property"]: entry for entry in explained}
    fields = {name: entry["fields"] for name, entry in entries.items()}
    if "NET-01" in ids:
        assert fields.pop("NET-01") == {
            **WS_FIELDS, "conv.padding": "symmetric", "stem.padding": "symmetric"
        }  # fmt: skip
    assert fields == {
        "WS-01": WS_FIELDS,
        "EXACT-04": {"agc.unit": "timm"},
        "WS-04": WS_FIELDS,
        "BLOCK-01": {**WS_FIELDS, "conv.padding": "symmetric"},
    }
    inherited = {name: entry["inherits"] for name, entry in entries.items() if "inherits" in entry}
    assert inherited == {"WS-04": "WS-01", "EXACT-04": "AGC-01"}
    for entry in entries.values():
        assert (entry["subject"], entry["asked"]) == ("timm", str(path))
        assert entry["ratio_before"] > 1e2 and entry["ratio_after"] <= 0.5


def timm():
    return Timm("f32")


def reason(call, *arguments):
    with pytest.raises(NotOffered) as caught:
        call(*arguments)
    return str(caught.value)


def activation(kind, gamma=1.5, slope=0.01):
    return framework.compiled(
        timm().activation(Activation("op", ("x",), kind, slope, gamma, 0.5, "after"))
    )


def test_its_gelu_is_that_of_erf_and_its_gamma_that_of_its_table():
    x = np.array([[[[-2.7, 1.0]]]], np.float32)
    exact = np.array([-2.7 * 0.0034669738, 0.8413447461])  # the other GELU is 5 % off at -2.7
    for kind in ("gelu_tanh", "gelu_erf"):
        np.testing.assert_allclose(
            activation(kind)(x)[0, 0, 0], 0.5 * 1.7015043497085571 * exact, rtol=1e-4
        )
        np.testing.assert_allclose(activation(kind, 1.0)(x)[0, 0, 0], 0.5 * exact, rtol=1e-4)


def test_what_it_has_no_counterpart_of():
    assert "softplus" in reason(activation, "softplus")
    assert "identity" in reason(activation, "identity")
    activation("identity", 1.0)
    assert "4x4" in reason(timm().pool, Pool("op", ("x",), "avg", 4, 4, "same"))
    assert "odd" in reason(timm().eca, ECA("op", ("x",), 8, 4, 2.0))
    assert "bf16" in reason(Timm, "bf16")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nf-resnet-50", "stages.0.0.skipinit_gain: timm's nf_resnet50 has none, and nf-resnet-50"),
        ("nf-regnet-b0", "timm's nf_regnet_b0 has (40, 3, 3, 3), and nf-regnet-b0 (36, 3, 3, 3)"),
        ("nfnet-f0+", "timm has no model for nfnet-f0+"),
        ("nf-resnet-600", "timm has no model for nf-resnet-600"),
    ],
)
def test_networks_with_other_parameters(source, words):
    assert words in reason(timm().forward, plan_of(source, False))


def test_a_network_of_no_known_name():
    other = resolve(load("nfnet-f0").model_copy(update={"name": "moth"}))
    assert reason(timm().forward, other) == "timm has no model for moth"


def test_every_timm_spec_has_its_model_and_so_have_the_originals_nfnets():
    for source in ("timm/nfnet_f0", "timm/nf_ecaresnet26", "timm/nf_seresnet50", "nfnet-f3"):
        plan = plan_of(source, False)
        assert len(dict(timm()._model(plan).named_parameters())) == len(plan.parameters)


@pytest.mark.parametrize("source", ["timm/test_nfnet", "timm/nf_resnet26"])
def test_its_networks_have_every_tap(source):
    """With a final conv and without; within four times what rounding does to the reference."""
    plan = plan_of(source, False)
    params = trial_params(plan, 0)
    x = np.random.default_rng(0).standard_normal((1, 40, 33, 3)).astype(np.float32)
    taps = framework.compiled(timm().forward(plan))(x, params)
    exact = reference.forward(plan, params, x)
    assert set(taps) == set(exact)
    rounded = reference.forward(plan, params, x, rounding=Rounding(0))
    for tap, y in exact.items():
        assert taps[tap].shape == y.shape
        near = 4.0 * np.linalg.norm(rounded[tap] - y)
        assert np.linalg.norm(taps[tap] - y) <= near, tap


def test_clipping_in_its_layout():
    """Each element of a gain is a unit, and each output of a dense kernel; shapes are kept."""
    for role, shape, axes in (
        ("gain", (3,), ()),
        ("kernel", (4, 3), (0,)),
        ("kernel", (2, 2, 4, 3), (0, 1, 2)),
        ("kernel", (5,), (0,)),
        ("skip_gain", (), ()),
    ):
        rng = np.random.default_rng(0)
        gradient, parameter = rng.standard_normal((2, *shape)).astype(np.float32)
        clip = framework.compiled(timm().agc(Clip(role, shape, "squeeze", 0.01, 1e-3)))
        clipped = clip(gradient, parameter)
        norms = [
            np.sqrt((v.astype(float) ** 2).sum(axis=axes, keepdims=True))
            for v in (gradient, parameter)
        ]
        factor = np.minimum(1.0, 0.01 * np.maximum(norms[1], 1e-3) / norms[0])
        assert clipped.shape == shape
        np.testing.assert_allclose(clipped, gradient * factor, rtol=1e-5)


def test_attention_has_a_gain_of_two_whatever_is_asked():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 24)).astype(np.float32)
    one, two = (
        framework.compiled(timm().eca(ECA("op", ("x",), 24, 3, gain)))(x, np.ones(3, np.float32))
        for gain in (1.0, 2.0)
    )
    np.testing.assert_array_equal(one, two)
    values = [0.0 * rng.standard_normal(q.shape) for q in SE.parameters]
    y = framework.compiled(timm().squeeze_excite(SE))(
        x[..., :16], *(np.asarray(v, np.float32) for v in values)
    )
    np.testing.assert_allclose(y, x[..., :16], rtol=1e-6)  # 2 * sigmoid(0)


def test_without_timm(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"run: pip install timm$"):
        Timm("f32")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_without_torchvision(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(BackendError) as caught:
        Timm("f32")
    assert str(caught.value).startswith(f"timm cannot be imported: {error}; it needs a torchvision")
    assert str(caught.value).endswith("run: pip install torchvision")
