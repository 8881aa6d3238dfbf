"""Corners: of every field that a case states, all of them in the general grid."""

from dataclasses import fields

import pytest

from nfspec import plan as p
from nfspec.conformance.cases.case import KINDS, NEUTRAL, Case
from nfspec.conformance.cases.corners import CORNERS, OF_NETWORKS, corners
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.errors import InputError

GENERAL = target(None)
GRID = {*GENERAL.ops, *GENERAL.clips}
BASES = {type(base): base for base in CORNERS}


def stated(kind):
    """The fields of a kind that a case states, and layers read."""
    return {field.name for field in fields(kind)} - {
        *NEUTRAL,
        "inputs",
        *OF_NETWORKS.get(kind, ()),
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_field_has_corners(kind):
    """A field that an operation gets later needs some, or is one of networks alone."""
    assert set(CORNERS[BASES[kind]]) == stated(kind)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_corner_is_of_its_field(kind):
    for name, several in CORNERS[BASES[kind]].items():
        assert several
        for changes in several:
            assert name in changes and set(changes) <= stated(kind)


def test_the_general_grid_has_every_corner():
    assert set(corners()) <= GRID


def test_what_corners_there_are():
    convs = [op for op in GENERAL.ops if isinstance(op, p.WSConv)]
    assert {1, 2, 4} <= {op.fan_in for op in convs}
    assert any(op.groups == op.in_channels == op.out_channels > 1 for op in convs)
    assert any(op.stride > op.kernel for op in convs)
    assert any(op.kernel > op.channels for op in GENERAL.ops if isinstance(op, p.ECA))
    for unit in ("squeeze", "timm", "tensor"):
        shapes = {clip.shape for clip in GENERAL.clips if clip.unit == unit}
        assert {(64, 1), (1, 1, 1, 24), (3, 3, 1, 8), (1,)} <= shapes


METHODS = {
    "WS-01", "WS-02", "ACT-01", "ACT-02", "POOL-01", "POOL-02", "SE-01", "SE-02", "ECA-01",
    "ECA-02", "RES-01", "MEAN-01",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(METHODS))
def test_images_of_a_single_pixel(name):
    shapes = {case.shape[:3] for case in PROPERTIES[name].cases(GENERAL)}
    assert {(1, 1, 1), (1, 2, 1)} <= shapes


@pytest.mark.parametrize("name", ["FC-01", "FC-02"])
def test_a_batch_of_one(name):
    assert 1 in {case.shape[0] for case in PROPERTIES[name].cases(GENERAL)}


def test_a_window_without_padding_has_as_many_pixels():
    for case in PROPERTIES["WS-01"].cases(GENERAL):
        if case.op.padding == "valid":
            assert min(case.shape[1:3]) >= case.op.kernel


@pytest.mark.parametrize("shape", [[0, 7, 6, 16], [2, 0, 6, 16]])
def test_a_case_without_images_is_refused(shape):
    """As the reference, and nfspec's models, refuse a batch of none."""
    (case, *_) = PROPERTIES["WS-01"].cases(GENERAL)
    with pytest.raises(InputError, match="shape: expected sizes of at least 1; found"):
        Case.parse(case.fields() | {"shape": shape})
