"""Explanations of networks, training and drops that are wrong in a known way: the true one, or
none."""

import pytest

from . import wrong_networks as wrong
from .local import SPEC, explanations
from .test_wrong import NONE, explained, reason, rest


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "small.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def stages(spec):
    """The spec with a third stage, where two rules for betas differ that do not in the second."""
    changes = {
        "depth = [1, 2]": "depth = [1, 2, 1]",
        "width = [16, 32]": "width = [16, 32, 32]",
        "stride = [1, 2]": "stride = [1, 2, 1]",
    }
    text = SPEC
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = spec.with_name("stages.toml")
    path.write_text(text)
    return path


def both(*names):
    return "; ".join(map(rest, names))


STEM = "an activation without gamma"
HEAD = "the activation before the global pool"
DROPS = [
    (wrong.Rescaled, "DROP-01", ({"stochastic_depth.rescale": True}, "", "")),
    (wrong.KeepRate, "DROP-01", ({}, rest("a rate that is taken"), "")),
    (wrong.DropsNothing, "DROP-01", ({}, rest("nothing dropped"), "")),
    (wrong.DropsElements, "DROP-01",
     ({"stochastic_depth.rescale": True}, rest("stochastic depth that drops"), "")),
    (wrong.PlainDropout, "DROP-02", ({}, rest("dropout that does not divide"), "")),
    (wrong.DropsTheBatch, "DROP-01", NONE),
]  # fmt: skip
NETWORKS = [
    (wrong.UnbiasedNetwork, "NET-03", ({"ws.ddof": 1, "activation.kind": "gelu_erf"}, "", "")),
    (wrong.NoAlpha, "BLOCK-01", ({}, rest("alpha left out"), "")),
    (wrong.NoSkipGain, "BLOCK-01", ({}, rest("the skip gain left out"), "")),
    (wrong.WrongNetwork, "BLOCK-01", NONE),
    (wrong.OddEpsNetwork, "NET-03", NONE),
    (wrong.CountsPaddingNetwork, "NET-03", ({}, rest("an average pool"), "")),
    (wrong.StemActivation, "NET-03", ({}, rest(STEM), "")),
    (wrong.NoFinalActivation, "NET-03", ({}, rest(HEAD), "")),
    (wrong.UnbiasedStemAndHead, "NET-03", ({"ws.ddof": 1}, both(STEM, HEAD), "")),
    (wrong.ActivatedShortcuts, "NET-03", ({}, rest("shortcuts without a conv"), "")),
]


BETAS = [
    (wrong.NeverReset, ({}, rest("betas of an expected variance that no"), "")),
    (wrong.OneByOne, ({}, rest("betas of an expected variance that a stage"), "")),
    (wrong.ResetTooEarly, ({}, rest("betas of an expected variance that is"), "")),
    (wrong.Variances, ({}, rest("betas of 1/variance"), "")),
    (wrong.OddBetas, NONE),
]


@pytest.mark.parametrize(("subject", "asked", "expected"), DROPS)
def test_drops(spec, subject, asked, expected):
    """Statistics have no ratio that says how far an explanation is from the bound: chance decides
    about some of them."""
    failed, entries = explanations(subject, spec, (asked,))
    assert failed == [asked]
    assert reason(entries[asked]) == expected
    assert "error" not in entries[asked]
    after = entries[asked]["ratio_after"]
    assert after <= 1.0 if expected != NONE else after > 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "asked", "expected"), NETWORKS)
def test_networks(spec, subject, asked, expected):
    explained(subject, asked, spec, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "expected"), BETAS)
def test_betas(stages, subject, expected):
    explained(subject, "NET-03", stages, expected)


@pytest.mark.slow
def test_an_eps_that_does_not_show_is_a_range(spec):
    """The flat channels of networks have N v above 1e-6."""
    _, seen = explanations(wrong.SmallEpsNetwork, spec, ("NET-03",))
    assert reason(seen["NET-03"]) == ({"ws.eps": 1e-5}, "", "")
    assert "at_most" not in seen["NET-03"]
    _, hidden = explanations(wrong.TinyEpsNetwork, spec, ("NET-03",))
    (name, value), *more = hidden["NET-03"]["fields"].items()
    assert (name, more) == ("ws.eps", []) and 1e-9 <= value <= 1e-5
    assert hidden["NET-03"]["at_most"] == ["ws.eps"]


@pytest.mark.slow
def test_what_follows_from_a_network_inherits_its_explanation(spec):
    ids = ("NET-03", "NET-02", "FOLD-01", "TRAIN-01", "STEP-01")
    failed, entries = explanations(wrong.UnbiasedEverywhere, spec, ids)
    assert failed == ["NET-03", "FOLD-01", "TRAIN-01"]
    for name, entry in entries.items():
        assert reason(entry) == ({"ws.ddof": 1}, "", "")
        assert entry.get("inherits", "") == ("" if name == "NET-03" else "NET-03")
        assert entry["ratio_after"] <= 0.5 < 10.0 < entry["ratio_before"]
    assert set(entries) == set(failed)


@pytest.mark.slow
def test_what_the_explanation_of_a_network_does_not_explain_says_nothing(spec):
    failed, entries = explanations(wrong.Stale, spec, ("NET-03", "FOLD-01", "TRAIN-01"))
    assert failed == ["NET-03", "FOLD-01", "TRAIN-01"]
    assert set(entries) == {"NET-03"}


@pytest.mark.slow
def test_training_alone(spec):
    failed, entries = explanations(wrong.ElementwiseTraining, spec, ("TRAIN-01",))
    assert failed == ["TRAIN-01"]
    assert reason(entries["TRAIN-01"]) == ({"agc.unit": "element"}, "", "")


@pytest.mark.slow
def test_what_is_right_is_not_explained(spec):
    ids = ("DROP-01", "DROP-02", "BLOCK-01", "NET-01", "NET-02", "NET-03", "FOLD-01", "TRAIN-01")
    assert explanations(wrong.Exact, spec, ids) == ([], {})
