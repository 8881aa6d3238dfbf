"""Explanations of subjects that are wrong in a known way: the true one, or none."""

import pytest

from nfspec.conformance.conventions import explain as module
from nfspec.conformance.conventions.defects import DEFECTS

from . import wrong_subjects as wrong
from .local import SPEC, explanations

OUTPUTS = "a fan-in that counts the output channels (k²·I·O)"
NONE = ({}, "", "")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "small.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def timms(spec):
    """The spec with timm's unit of AGC."""
    path = spec.with_name("timm.toml")
    path.write_text(SPEC + '\n[agc]\nunit = "timm"\n')
    return path


def reason(entry):
    return entry["fields"], "; ".join(entry.get("defects", ())), entry.get("factor", "")


def rest(name):
    """The sentence of the one defect that begins with some words."""
    (sentence,) = (d.sentence for d in DEFECTS if d.sentence.startswith(name))
    return sentence


QUICK = [
    (wrong.OtherGelu, "ACT-01", ({"activation.kind": "gelu_erf"}, "", "")),
    (wrong.NoGamma, "ACT-01", ({"activation.gamma": 1.0}, "", "")),
    (wrong.BetaBefore, "ACT-01", ({"activation.beta_at": "before"}, "", "")),
    (wrong.SigmoidGelu, "ACT-01", ({}, rest("GELU as"), "")),
    (wrong.NoBeta, "ACT-01", ({}, rest("beta left out"), "")),
    (wrong.GammaTwice, "ACT-01", ({}, "", "1.702 = gamma of gelu_tanh")),
    (wrong.OddActivation, "ACT-01", NONE),
    (wrong.OwnActivationInSE, "SE-01",
     ({"se.activation": "gelu_tanh", "se.gamma": "deepmind"}, "", "")),
    (wrong.NoGain, "SE-01", ({"attention.gain": 1.0}, "", "")),
    (wrong.ElementAGC, "AGC-01", ({"agc.unit": "element"}, "", "")),
    (wrong.DenseByInput, "AGC-01", ({}, rest("norms of dense kernels"), "")),
    (wrong.TorchAxes, "AGC-01", ({}, rest("norms of HWIO kernels"), "")),
    (wrong.EpsUnscaled, "AGC-01", ({}, rest("an eps that lambda does not"), "")),
    (wrong.EpsAdded, "AGC-01", ({}, rest("an eps that is added to the norm"), "")),
    (wrong.EpsAddedByOutput, "AGC-01", ({}, rest("an eps that is added to the norm"), "")),
    (wrong.EpsInRoot, "AGC-01", ({}, rest("an eps that is added within"), "")),
    (wrong.RootMeanSquare, "AGC-01", ({}, rest("norms as roots of means"), "")),
    (wrong.EpsOfBoth, "AGC-01", NONE),
    (wrong.OtherSide, "AGC-01", ({}, rest("lambda on the side"), "")),
    (wrong.ManhattanAGC, "AGC-01", NONE),
    (wrong.CountsOutputs, "WS-01", ({}, OUTPUTS, "")),
]  # fmt: skip
ADDED = {"ws.eps_rule": "add", "ws.eps": 1e-10}
LONGER = [
    (wrong.Heavy, "STEP-01", ({"recipe.nesterov": False}, "", "")),
    (wrong.ClipsTheHead, "STEP-01", ({"agc.exclude": ()}, "", "")),
    (wrong.Unbiased, "WS-01", ({"ws.ddof": 1}, "", "")),
    (wrong.OnlySomeShapes, "WS-01", NONE),
    (wrong.RootFanIn, "WS-01", ({}, "", "1/√fan-in, such as 1/√27 = 0.1925")),
    (wrong.Tiny, "WS-01", (ADDED, "", "")),
    (wrong.ToStd, "WS-01", ({"ws.eps_rule": "add_to_std", "ws.eps": 1e-5}, "", "")),
    (wrong.CountsGroups, "WS-01", ({}, rest("a fan-in that counts the input"), "")),
    (wrong.BiT, "WS-01", (ADDED, rest("a standard deviation without"), "")),
    (
        wrong.PaddedByHalfAndEpsAdded,
        "WS-01",
        ({"conv.padding": "symmetric"}, rest("an eps that is added to fan-in"), ""),
    ),
    (wrong.UnbiasedCountsOutputs, "WS-01", ({"ws.ddof": 1}, OUTPUTS, "")),
    (wrong.NoKernelGain, "WS-01", ({}, rest("the gain of the convs"), "")),
    (wrong.Twice, "WS-01", ({}, "", "2")),
    (wrong.UnbiasedHalf, "WS-01", ({"ws.ddof": 1}, "", "0.5 = 1/2")),
    (wrong.WrongMean, "WS-01", NONE),
    (wrong.UnknownEps, "WS-01", NONE),
]


def explained(subject, asked, spec, expected):
    failed, entries = explanations(subject, spec, (asked,))
    assert failed == [asked]
    entry = entries[asked]
    assert reason(entry) == expected
    assert "error" not in entry
    if expected == NONE:
        assert entry["ratio_after"] == entry["ratio_before"] > 1.0
    else:
        assert entry["ratio_after"] <= 0.5 < 10.0 < entry["ratio_before"]


@pytest.mark.parametrize(("subject", "asked", "expected"), QUICK)
def test_the_true_explanation_or_none(spec, subject, asked, expected):
    explained(subject, asked, spec, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "asked", "expected"), LONGER)
def test_the_true_explanation_or_none_of_longer_searches(spec, subject, asked, expected):
    explained(subject, asked, spec, expected)


def test_a_unit_that_agrees_on_the_shapes_of_the_spec_alone_is_not_given(timms):
    """A network has no kernel of one weight for each output, where `squeeze` is another rule."""
    _, entries = explanations(wrong.TensorFlowAGC, timms, ("AGC-01",))
    assert reason(entries["AGC-01"]) == ({"agc.unit": "output"}, "", "")


def test_one_cause_is_told_once(spec):
    """A property that is not stated under other conventions passes there for no reason."""
    ids = ("WS-03", "WS-04", "EXACT-01", "EXACT-02", "MODE-01", "WS-01")
    failed, entries = explanations(wrong.Tiny, spec, ids)
    assert set(failed) == {"WS-01", "WS-04", "EXACT-01"}  # the canary sees rounding alone
    assert set(entries) == set(failed)
    for name, entry in entries.items():
        assert reason(entry) == (ADDED, "", "")
        assert entry.get("inherits", "") == ("" if name == "WS-01" else "WS-01")
        assert entry["ratio_after"] <= 0.5


def test_an_invariance_alone_inherits_from_what_was_not_run_or_says_nothing(spec):
    failed, entries = explanations(wrong.ElementAGC, spec, ("AGC-05",))
    assert failed == ["AGC-05"]
    assert reason(entries["AGC-05"]) == ({"agc.unit": "element"}, "", "")
    assert entries["AGC-05"]["inherits"] == "AGC-01"
    failed, entries = explanations(wrong.ManhattanAGC, spec, ("AGC-05",))
    assert (failed, entries) == (["AGC-05"], {})


@pytest.mark.slow
def test_gradients_under_another_padding(spec):
    """An output of another shape does not fit dy: no exception, but no explanation."""
    _, entries = explanations(wrong.Symmetric, spec, ("WS-01", "WS-02"))
    assert reason(entries["WS-01"]) == ({"conv.padding": "symmetric"}, "", "")
    assert entries["WS-02"]["inherits"] == "WS-01"


def test_an_average_pool_that_counts_padding(spec):
    failed, entries = explanations(wrong.CountsPadding, spec, ("EXACT-03", "POOL-01", "POOL-02"))
    assert set(failed) == {"EXACT-03", "POOL-01", "POOL-02"}
    for name, entry in entries.items():
        assert reason(entry) == ({}, rest("an average pool"), "")
        assert entry.get("inherits", "") == ("" if name == "POOL-01" else "POOL-01")


@pytest.mark.slow
def test_statistics_in_the_computations_precision(spec):
    _, entries = explanations(wrong.NarrowStatistics, spec, ("WS-01",), "bf16")
    assert reason(entries["WS-01"]) == ({"ws.dtype": "compute"}, "", "")


def test_what_is_right_is_not_explained(spec):
    ids = ("EXACT-01", "EXACT-04", "MODE-01", "ACT-01", "SE-01", "WS-04", "AGC-01")
    assert explanations(wrong.Right, spec, ids) == ([], {})


def test_an_error_costs_one_explanation(spec, monkeypatch):
    right = module.explanation

    def explanation(question, refute, known):
        if question.asked.id == "WS-01":
            raise ValueError("matmul: no such shapes")
        return right(question, refute, known)

    monkeypatch.setattr(module, "explanation", explanation)
    _, entries = explanations(wrong.UnbiasedOtherGelu, spec, ("WS-01", "ACT-01", "EXACT-01"))
    text = "the search for an explanation failed: ValueError: matmul: no such shapes"
    assert entries["WS-01"]["error"] == text
    assert entries["WS-01"]["ratio_after"] == entries["WS-01"]["ratio_before"] > 1.0
    assert reason(entries["ACT-01"]) == ({"activation.kind": "gelu_erf"}, "", "")
    assert "EXACT-01" not in entries  # which has nothing to inherit


def test_an_interrupt_ends_the_search(spec, monkeypatch):
    def explanation(question, refute, known):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "explanation", explanation)
    with pytest.raises(KeyboardInterrupt):
        explanations(wrong.OtherGelu, spec, ("ACT-01",))
