"""Targets: operations as they are tested, and a stop at those that no property knows."""

from dataclasses import dataclass
from typing import get_args

import pytest

from nfspec import plan as p
from nfspec.conformance.cases.target import (
    CONV,
    OUTPUTS,
    narrowed,
    plan_of,
    source_of,
    target,
    words_of,
)
from nfspec.conformance.properties import layers
from nfspec.conformance.subjects import nfspec as subject
from nfspec.language.fields import Kind


@dataclass(frozen=True)
class Shuffle(p.Op):
    """An operation that is not one of `Operation`."""


UNKNOWN = Shuffle("block.shuffle", ("x",))
FOLDED = p.Conv("conv", ("x",), 16, 8, 3, 1, 1, "same")
READERS = {
    "the target of a run": narrowed,
    "the shape of a layer's input": layers._features,
    "the bound of a layer": lambda op: layers._forward_bound(op, {}, None),
    "the bound of a layer's gradients": lambda op: layers._gradient_bound(
        op, {"dy": None, "x": None}, None
    ),
    "nfspec's own layers": subject._shape,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_an_operation_that_a_reader_does_not_know_stops_it(read):
    with pytest.raises(TypeError, match=r"does not know the operation Shuffle \(block\.shuffle\)"):
        read(UNKNOWN)


@pytest.mark.parametrize("name", [name for name in READERS if "bound" in name])
def test_a_conv_is_no_layer_of_the_properties_of_layers(name):
    with pytest.raises(TypeError, match=r"not tested as a layer: WSConv \(op\)"):
        READERS[name](CONV)


def test_a_folded_conv_is_not_tested_by_itself():
    with pytest.raises(TypeError, match=r"a folded conv is tested in its network.* \(conv\)"):
        narrowed(FOLDED)


def test_a_classifier_has_fewer_classes():
    dense = p.Dense("fc", ("x",), 96, 1000, 1.0)
    assert narrowed(dense).out_features == OUTPUTS
    assert narrowed(CONV) is CONV


def test_every_kind_of_operation_is_tested_somewhere():
    kinds = {type(op) for op in target(None).ops}
    assert kinds == {*p.Operation.__args__} - {p.Conv}


def test_the_general_grid_has_every_kind_of_activation():
    kinds = {op.kind for op in target(None).ops if isinstance(op, p.Activation)}
    assert kinds == set(get_args(Kind))


def test_a_spec_that_is_changed_is_named_with_its_changes():
    changes = ("stages.alpha=[0.3, 0.4]", "activation.kind=silu")
    source = source_of("a folder/nfnet.toml", changes)
    assert words_of(source) == [
        "a folder/nfnet.toml", *("--set", changes[0]), *("--set", changes[1])
    ]  # fmt: skip
    assert words_of("nfnet-f0") == ["nfnet-f0"]
    changed = source_of("nfnet-nano", ("stages.alpha=0.3",))
    assert {row.alpha for row in plan_of(changed, False).blocks} == {0.3}
    assert {row.alpha for row in plan_of(changed, True).blocks} == {0.3}
    assert target(changed).spec.digest != target("nfnet-nano").spec.digest
