"""Strides that become dilation. tests/backends/test_timm.py sees that the logits are timm's."""

import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError, SpecError

FAMILIES = ("nfnet-f0", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l0")


def columns(name, stride):
    spec = nfspec.output_stride(nfspec.load(name), stride)
    return spec.stages.column("stride"), spec.stages.column("dilation")


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [
        ("nfnet-f0", 32, ((1, 2, 2, 2), (1, 1, 1, 1))),
        ("nfnet-f0", 16, ((1, 2, 2, 1), (1, 1, 1, 2))),
        ("nfnet-f0", 8, ((1, 2, 1, 1), (1, 1, 2, 4))),
        ("nfnet-f0", 4, ((1, 1, 1, 1), (1, 2, 4, 8))),
        ("nf-regnet-b0", 8, ((2, 2, 1, 1), (1, 1, 2, 4))),
        ("nf-regnet-b0", 2, ((1, 1, 1, 1), (2, 4, 8, 16))),
        ("nf-resnet-50", 8, ((1, 2, 1, 1), (1, 1, 2, 4))),
    ],
)
def test_strides_become_dilations(name, stride, expected):
    assert columns(name, stride) == expected


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stride", [8, 16])
def test_the_parameters_are_the_same_and_the_features_larger(name, stride):
    spec = nfspec.load(name)
    whole, dilated = nfspec.resolve(spec), nfspec.resolve(nfspec.output_stride(spec, stride))
    assert dilated.parameters == whole.parameters
    assert dilated.tap_info["features"].stride == stride
    rows = {row.name: row.shape for row in nfspec.count(dilated, (96, 70)).blocks}
    assert rows[dilated.blocks[-1].name][:2] == (96 // stride, -(-70 // stride))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_at_its_own_stride_is_the_same(name):
    spec = nfspec.load(name)
    assert nfspec.output_stride(spec, 32) == spec
    assert nfspec.output_stride(spec, 32).digest == spec.digest


def test_a_network_that_is_dilated_may_be_dilated_again():
    spec = nfspec.load("nfnet-f0")
    once = nfspec.output_stride(nfspec.output_stride(spec, 16), 8)
    assert once.digest == nfspec.output_stride(spec, 8).digest


def test_dilated_convs_look_at_the_pixels_that_strided_ones_look_at():
    """Away from the borders, every second pixel of the dilated map is the strided map's, where
    padding is symmetric: otherwise strided convs and pools begin a pixel apart."""
    over = {
        "stages.depth": [1, 2], "stages.width": [8, 16], "stages.group_width": 4,
        "stages.stride": [1, 2], "stages.attention": "none", "head.conv": "none",
        "stem.width": [8], "stem.stride": [1], "stem.kernel": [3],
    }  # fmt: skip
    spec = nfspec.load("timm/eca_nfnet_l0", over)
    plans = [nfspec.resolve(each) for each in (spec, nfspec.output_stride(spec, 1))]
    params, rng = nfspec.init(plans[0], seed=0), np.random.default_rng(0)
    params = {name: value + rng.standard_normal(value.shape) for name, value in params.items()}
    x = rng.standard_normal((1, 40, 40, 3))
    strided, dilated = (nfspec.reference.forward(p, params, x)["features"] for p in plans)
    inside = slice(6, 14)
    np.testing.assert_allclose(
        dilated[:, ::2, ::2][:, inside, inside], strided[:, inside, inside], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("stride", [12, 64, 1])
def test_a_stride_that_the_network_has_not_is_refused(stride):
    with pytest.raises(InputError, match=r"a stride that nfnet-f0 has, one of 4, 8, 16, 32"):
        nfspec.output_stride(nfspec.load("nfnet-f0"), stride)


@pytest.mark.parametrize("stride", ["8", 8.0, True, None])
def test_something_else_than_a_number_is_refused(stride):
    with pytest.raises(InputError, match="stride: expected a whole number"):
        nfspec.output_stride(nfspec.load("nfnet-f0"), stride)


def test_something_else_than_a_spec_is_refused():
    with pytest.raises(InputError, match=r"spec: expected what nfspec\.load returns"):
        nfspec.output_stride(nfspec.resolve(nfspec.load("nfnet-f0")), 8)


def test_a_dilation_beyond_the_language_is_refused():
    over = {"stages.dilation": [1, 1, 1, 40]}
    with pytest.raises((InputError, SpecError), match="dilation"):
        nfspec.output_stride(nfspec.load("nfnet-f0", over), 16)
