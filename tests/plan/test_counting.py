"""Counts by section; tests/language/test_variants.py has the totals of whole networks."""

import pytest

import nfspec
from nfspec.plan.counting import divided_count, divides, parameter_count


@pytest.fixture(scope="module")
def plan():
    return nfspec.resolve(nfspec.load("nfnet-f0"))


def test_sections_add_up_and_end_where_the_network_does(plan):
    counted = nfspec.count(plan, 256)
    names = [row.name for row in counted.blocks]
    assert names == ["stem", *(block.name for block in plan.blocks), "head"]
    for field in ("parameters", "macs", "activation_bytes"):
        assert sum(getattr(row, field) for row in counted.blocks) == getattr(counted, field)
    assert [row.shape for row in counted.blocks][:3] == [
        (64, 64, 128),
        (64, 64, 256),
        (32, 32, 512),
    ]
    assert counted.blocks[-1].shape == (1000,)


def test_a_block_counted_by_hand(plan):
    """Stage 0 at 64x64: 1x1 128→128, two 3x3 128→128, 1x1 128→256, shortcut 128→256, SE of 128."""
    row = nfspec.count(plan, 256).blocks[1]
    weights = 128 * 128 + 2 * 9 * 128 * 128 + 128 * 256 + 128 * 256
    gains_and_biases = 2 * (3 * 128 + 2 * 256)
    se = 2 * 256 * 128
    assert row.parameters == weights + gains_and_biases + se + 128 + 256 + 1
    assert row.macs == 64 * 64 * weights + se
    # act0, conv0, act1, conv1, act1b, conv1b, act2; conv_shortcut, conv2, se, add. The first block
    # is never dropped.
    assert row.activation_bytes == 4 * 64 * 64 * (7 * 128 + 4 * 256)


@pytest.mark.parametrize(
    ("shape", "parts", "divided"),
    [
        ((3, 3, 8, 16), 8, True),
        ((3, 3, 8, 16), 1, True),
        ((32, 10), 5, True),
        ((32, 10), 8, False),
        ((8, 12), 8, False),  # its inputs do
        ((16,), 8, False),
        ((), 1, False),
    ],
)
def test_what_is_kept_in_parts(shape, parts, divided):
    assert divides(shape, parts) == divided


def test_the_parameters_of_each_device_counted_by_hand(plan):
    """In 16 parts a stem of 16 channels has one each; the classifier's 1,000 are in no 16 parts."""
    whole = parameter_count(plan)
    assert divided_count(plan.ops[:1], 16) == 3 * 3 * 3 * 16
    stays = sum(p.size for p in plan.parameters.values() if p.role not in ("kernel", "head"))
    stays += 3072 * 1000
    assert parameter_count(plan, 16) == stays + (whole - stays) / 16
    assert parameter_count(plan, 1) == whole == nfspec.count(plan).parameters


def test_the_test_size_is_the_default_and_sides_may_differ(plan):
    assert nfspec.count(plan).size == (256, 256)
    wide = nfspec.count(plan, (64, 96))
    assert wide.size == (64, 96)
    assert wide.blocks[0].shape == (16, 24, 128)
    assert wide.parameters == nfspec.count(plan).parameters


def test_an_image_too_small_is_refused():
    spec = nfspec.load("nfnet-f0")
    stem = spec.stem.model_copy(update={"padding": "valid"})
    plan = nfspec.resolve(spec.model_copy(update={"stem": stem}))
    with pytest.raises(nfspec.InputError, match=r"image of 4x4 px: nothing is left of it at stem"):
        nfspec.count(plan, 4)
