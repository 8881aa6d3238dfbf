"""Widths of stages and bottlenecks, and their groups, against the original's numbers."""

import pytest

from nfspec.language.loader import load
from nfspec.plan.resolver import resolve


def planned(name):
    return resolve(load(name))


def by_name(plan):
    return {op.name: op for op in plan.ops}


def test_widths_and_groups_of_the_originals_nfnets():
    f0 = {
        (b.in_channels, b.mid_channels, b.out_channels, b.groups)
        for b in planned("nfnet-f0").blocks
    }
    assert f0 == {
        (128, 128, 256, 1),
        (256, 256, 512, 2),
        (512, 256, 512, 2),
        (512, 768, 1536, 6),
        (1536, 768, 1536, 6),
    }
    plus = planned("nfnet-f0+").blocks
    assert [(b.mid_channels, b.groups) for b in plus[:4]] == [
        (128, 1),
        (384, 3),
        (384, 3),
        (1024, 8),
    ]
    assert (plus[0].in_channels, plus[0].requested_mid_channels, plus[0].mid_channels) == (
        192,
        192,
        128,
    )
    assert planned("nfnet-f4+paper").blocks[0].mid_channels == 192


# DeepMind's and timm's rounding of one table: stem and stages, final conv.
REGNETS = {
    "nf-regnet-b0": ([36, 36, 78, 156, 330], 960),
    "nf-regnet-b1": ([36, 36, 78, 156, 330], 960),
    "nf-regnet-b2": ([42, 42, 84, 174, 366], 1064),
    "nf-regnet-b3": ([42, 42, 96, 186, 396], 1152),
    "nf-regnet-b4": ([48, 48, 108, 216, 462], 1344),
    "nf-regnet-b5": ([60, 60, 126, 252, 528], 1536),
    "nf-regnet-b6": ([66, 66, 138, 282, 594], 1728),
    "nf-regnet-b7": ([72, 72, 156, 312, 660], 1920),
    "nf-regnet-b8": ([78, 78, 174, 342, 726], 2112),
    "timm/nf_regnet_b0": ([40, 40, 80, 160, 328], 960),
    "timm/nf_regnet_b1": ([40, 40, 80, 160, 328], 960),
    "timm/nf_regnet_b2": ([40, 40, 88, 176, 368], 1064),
    "timm/nf_regnet_b3": ([40, 40, 96, 184, 400], 1152),
    "timm/nf_regnet_b4": ([48, 48, 112, 216, 464], 1344),
    "timm/nf_regnet_b5": ([64, 64, 128, 256, 528], 1536),
}


@pytest.mark.parametrize("name", REGNETS)
def test_widths_of_the_regnets(name):
    plan = planned(name)
    actual = by_name(plan)
    outs = [b.out_channels for b in plan.blocks if b.index == 0]
    assert (
        [actual["stem.conv0"].out_channels, *outs],
        actual["final_conv"].out_channels,
    ) == REGNETS[name]


def test_the_regnets_bottleneck_comes_from_the_blocks_input():
    deepmind, timm = planned("nf-regnet-b0").blocks, planned("timm/nf_regnet_b0").blocks
    # in * 2.25, down to whole groups of 8; the first block's is its input
    assert [b.mid_channels for b in deepmind[:3]] == [32, 80, 168]
    assert [b.requested_mid_channels for b in deepmind[:3]] == [36, 81, 175]
    assert [(b.mid_channels, b.groups) for b in timm[:3]] == [(40, 5), (88, 11), (184, 23)]


def test_the_number_of_groups_may_be_stated(written):
    plan = written('[stages]\ngroups = [1, 2, 6, 7]\ngroup_width = "none"\n')
    blocks = {b.stage: (b.groups, b.mid_channels, b.requested_mid_channels) for b in plan.blocks}
    assert blocks == {0: (1, 128, 128), 1: (2, 256, 256), 2: (6, 768, 768), 3: (7, 763, 768)}


def test_one_stage_may_have_a_number_of_groups_and_another_a_width(written):
    plan = written(
        '[stages]\ngroups = ["none", 2, 6, 6]\ngroup_width = [64, "none", "none", "none"]\n'
    )
    assert [b.groups for b in plan.blocks if b.index == 0] == [2, 2, 6, 6]


def test_groups_of_one_channel_are_depthwise_convs():
    plan = resolve(load("nfnet-f0", {"stages.group_width": 1}))
    for block in plan.blocks:
        assert (block.groups, block.mid_channels) == (block.requested_mid_channels,) * 2
    convs = {op.name: op for op in plan.ops}
    assert convs["stages.0.blocks.0.conv1"].kernel_shape == (3, 3, 1, 128)
