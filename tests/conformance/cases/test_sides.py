"""Sides of images that strides do not divide, or do."""

import pytest

import nfspec
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.sides import odd_and_even
from nfspec.plan import INPUT, Convolution, Pool
from nfspec.plan.counting import shapes

import networks
from representatives import REPRESENTATIVES


def entering(plan, height, width):
    """For each operation that strides: its stride, and height and width of what it reads."""
    outputs = {INPUT: (height, width), **shapes(plan, height, width)}
    return [
        (op.stride, *outputs[op.inputs[0]][:2])
        for op in plan.ops
        if isinstance(op, Convolution | Pool) and op.stride > 1
    ]


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_stride_meets_an_odd_side_and_an_even_one(name):
    plan = reduced_plan(nfspec.load(name))
    odd, even = odd_and_even(plan)
    assert odd != even and entering(plan, odd, even)
    for stride, height, width in entering(plan, odd, even):
        assert height % stride and not width % stride


@pytest.mark.parametrize("name", ["nfnet-f0", "timm/nf_resnet50"])
def test_as_many_pixels_as_are_asked_for_are_left_to_the_last_stage(name):
    plan = nfspec.resolve(nfspec.load(name))
    odd, even = odd_and_even(plan, last=3)
    height, width, _ = shapes(plan, odd, even)[plan.taps["features"]]
    assert height == width == 3
    for stride, height, width in entering(plan, odd, even):
        assert height % stride and not width % stride


def test_padding_that_drops_rows():
    """Under `valid` padding other sides are odd everywhere."""
    spec = nfspec.load("nf-resnet-50")
    data = spec.model_dump(by_alias=True)
    data["stem"]["padding"] = "valid"
    plan = nfspec.resolve(type(spec).model_validate(data))
    odd, even = odd_and_even(plan)
    assert all(h % s and not w % s for s, h, w in entering(plan, odd, even))


def test_windows_that_leave_nothing_of_small_images(tmp_path):
    """An image of a side that is all strides together is too small for them."""
    plan = nfspec.resolve(networks.network("valid-stem", tmp_path))
    with pytest.raises(nfspec.InputError):
        side = plan.tap_info["features"].stride
        shapes(plan, side, side)
    odd, even = odd_and_even(plan)
    assert odd != even and shapes(plan, odd, even)
