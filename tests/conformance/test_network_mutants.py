"""Networks with one mistake each, of which nothing but the whole, or a block, can be asked."""

from dataclasses import replace

import pytest

from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.run import essential_cases

from .exact_replies import expected_of, judged
from .network_mutants import MUTANTS, Mutant

# Cases of square images of even sides and of weights at their usual scale do not show these.
HIDDEN = {
    "average pool counts padding",
    "average pool counts padding, regnet",
    "average pool drops what is over",
    "eps a tenth",
    "eps a hundredth more",
    "eps as good as none",
    "weights that are alike left as they are",
    "gains without their sign",
    "gains of a tenth at least",
    "gains of at most two",
    "skip gain without its sign",
    "images made square",
    "a batch of one squeezed",
}


def cases(property_id, mutant):
    """The essential cases of networks that are cut down: those of whole ones take seconds."""
    about = target(mutant.spec)
    return [c for c in essential_cases(PROPERTIES[property_id], about, "f32", 0) if c.reduced]


def ratio(case, mutant, monkeypatch):
    calls, _ = expected_of(case)
    return judged(case, mutant.outputs(case, calls[0]["x"], monkeypatch)).ratio


@pytest.mark.parametrize("name", MUTANTS)
def test_the_network_alone_shows_it(name, monkeypatch):
    asked = cases("NET-03", MUTANTS[name])
    assert max(ratio(case, MUTANTS[name], monkeypatch) for case in asked) > 1.0
    (normal,) = (case for case in asked if case.regime == "normal")
    square = ratio(replace(normal, shape=()), MUTANTS[name], monkeypatch)
    assert (square <= 1.0) == (name in HIDDEN)


# A block is given its images, and its plan has the beta.
OF_BLOCKS = [
    name for name in MUTANTS if not name.startswith(("beta", "global", "images", "maximum"))
]


@pytest.mark.parametrize("name", OF_BLOCKS)
def test_a_block_alone_shows_it(name, monkeypatch):
    several = cases("BLOCK-01", MUTANTS[name])
    assert any(ratio(case, MUTANTS[name], monkeypatch) > 1.0 for case in several)


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "timm/eca_nfnet_l0", "nf-resnet-50"])
@pytest.mark.parametrize("asked", ["NET-03", "BLOCK-01"])
def test_the_network_without_a_mistake_conforms(asked, name, monkeypatch):
    right = Mutant(name)
    assert max(ratio(case, right, monkeypatch) for case in cases(asked, right)) <= 0.1
