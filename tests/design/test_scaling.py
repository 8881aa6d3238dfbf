"""Specs at a budget: how near they come, and that nothing else changes."""

import math
import re

import pytest

import nfspec
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.cost.roofline import step
from nfspec.design import making, searching
from nfspec.design.reach import end
from nfspec.design.scaling import scale
from nfspec.design.searching import NEAR
from nfspec.design.written import scaled_file
from nfspec.language.differences import spec_fields
from nfspec.language.fields import MAX_BLOCKS

# A network of each family and dialect.
PARENTS = (
    "nfnet-f0",
    "nf-regnet-b0",
    "nf-resnet-50",
    "timm/dm_nfnet_f0",
    "timm/eca_nfnet_l0",
    "timm/nf_regnet_b1",
    "timm/nf_resnet26",
    "timm/test_nfnet",
)
BUDGETS = (0.2e9, 3e9, 200e9)
MAY_CHANGE = {
    ("input", "train"),
    ("input", "test"),
    ("stem", "width"),
    ("stages", "depth"),
    ("stages", "width"),
    ("stages", "width_factor"),
    ("stages", "group_width"),
    ("head", "conv_width"),
    ("head", "dropout"),
}


def written(scaled, folder):
    """The spec that is read from the file of a scaled one."""
    path = folder / "small.toml"
    path.write_text(scaled_file(scaled, "small", scaled.parent.name, ["width"]))
    return nfspec.load(path)


@pytest.mark.parametrize("name", PARENTS)
def test_a_budget_is_met(name, tmp_path):
    """One of the budgets; a slow test takes each."""
    for macs in BUDGETS[PARENTS.index(name) % len(BUDGETS) :][:1]:
        scaled = scale(nfspec.load(name), macs=macs)
        assert scaled.miss <= 0.03
        assert scaled.counted.macs == pytest.approx(macs, rel=0.03)
        assert {*scaled.changed} <= MAY_CHANGE
        assert scaled.counted == nfspec.count(nfspec.resolve(written(scaled, tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("by", [("width", "depth", "size"), ("family",), ("width",)])
@pytest.mark.parametrize("name", nfspec.variants())
def test_every_network_meets_every_budget(name, by, tmp_path):
    """By widths alone, those that are at most a hundred times less than it has: a deep network of
    the narrowest stages takes more than the smallest budgets."""
    own = nfspec.count(nfspec.resolve(nfspec.load(name))).macs
    for macs in (0.2e9, 0.5e9, 1e9, 2e9, 5e9, 20e9, 60e9, 200e9):
        if by == ("width",) and macs < own / 100:
            continue
        scaled = scale(nfspec.load(name), macs=macs, by=by)
        assert scaled.miss <= 0.03, macs
        assert written(scaled, tmp_path).digest == scaled.spec.digest


def by_hand(spec, macs):
    """The least distance from a budget on the way of a bisection of the width factor, and of one of
    the depths."""

    def of(**stages):
        try:
            changed = spec.model_copy(update={"stages": spec.stages.model_copy(update=stages)})
            return nfspec.count(nfspec.resolve(changed)).macs
        except (nfspec.SpecError, nfspec.InputError):
            return None

    own = spec.stages
    ways = (
        lambda factor: of(width_factor=own.width_factor * factor),
        lambda factor: of(depth=tuple(max(1, round(blocks * factor)) for blocks in own.depth)),
    )
    best = math.inf
    for way in ways:
        low, high = math.log(1 / 256), math.log(256)
        for _ in range(24):
            middle = (low + high) / 2
            found = way(math.exp(middle))
            best = min(best, math.inf if found is None else abs(found / macs - 1))
            less = middle < 0 if found is None else found < macs
            low, high = (middle, high) if less else (low, middle)
    return best


def none_worse(name, macs):
    spec = nfspec.load(name)
    assert scale(spec, macs=macs).miss <= by_hand(spec, macs), (name, macs)


def test_no_budget_is_met_worse_than_by_a_bisection_by_hand():
    none_worse("nf-resnet-50", 3e9)
    none_worse("timm/nfnet_l0", 0.2e9)


@pytest.mark.slow
@pytest.mark.parametrize("name", nfspec.variants())
def test_no_budget_is_met_worse_than_by_hand_by_any_network(name):
    for macs in (0.2e9, 0.5e9, 1e9, 2e9, 5e9, 20e9, 60e9, 200e9):
        none_worse(name, macs)


@pytest.mark.parametrize(
    "name, accelerator, seconds",
    [("nfnet-f0", "h100", 0.02), ("nf-resnet-50", "tpu-v3", 2.0), ("nf-regnet-b0", "v100", 0.3)],
)
def test_a_budget_of_time_is_met(name, accelerator, seconds, tmp_path):
    scaled = scale(nfspec.load(name), step=seconds, accelerator=accelerator)
    assert scaled.miss <= NEAR and scaled.parent.name == name
    new = nfspec.resolve(written(scaled, tmp_path))
    kind = new.recipe.precision
    cost = step(new, ACCELERATORS[accelerator], 256, precision=kind).seconds
    assert cost == scaled.seconds == pytest.approx(seconds, rel=NEAR)
    assert {*scaled.changed} <= MAY_CHANGE


def test_of_two_budgets_the_smaller_counts():
    spec, device = nfspec.load("nf-resnet-50"), {"accelerator": "h100"}
    slow = scale(spec, macs=2e9, step=10.0, **device)
    assert slow.counted == scale(spec, macs=2e9).counted and slow.seconds < 1.0
    fast = scale(spec, macs=2e12, step=0.05, **device)
    assert fast.seconds == pytest.approx(0.05, rel=0.03) and fast.counted.macs < 1e11


@pytest.mark.slow
def test_a_time_and_parameters_are_met_by_sizes():
    scaled = scale(nfspec.load("nfnet-f0"), params=50e6, step=0.1, accelerator="h100")
    assert scaled.counted.parameters == pytest.approx(50e6, rel=0.03)
    assert scaled.seconds == pytest.approx(0.1, rel=0.1)


def test_the_time_of_the_parent_changes_nothing():
    spec = nfspec.load("nfnet-f0")
    own = step(nfspec.resolve(spec), ACCELERATORS["h100"], 64, precision="bfloat16").seconds
    assert scale(spec, step=own, accelerator="h100", batch=64).changed == {}


def test_times_that_no_network_has_end_at_the_nearest():
    least = scale(nfspec.load("nfnet-nano"), step=1e-9, accelerator="h100")
    assert least.miss > 1 and least.counted.macs < 1e6


@pytest.mark.parametrize(
    ("name", "budget", "sentence"),
    [
        (
            "nfnet-f0",
            {"macs": 1e20},
            r"about 1.3e\+16 multiply-accumulates by width, depth, size, with stages.depth "
            "at 1,999 blocks, input.test at 8,192 px, stages.width at 5,400 and 100 G parameters "
            "as the most that a network may have$",
        ),
        ("nfnet-f0", {"macs": 1.0, "by": ("size",)}, "86.9 M .* by size, with input.test at 16 px"),
        ("nfnet-f0", {"macs": 1e17, "by": ("depth",)}, "with stages.depth at 2,000 blocks$"),
        ("nf-resnet-50", {"params": 1.0}, "least about .* k parameters .* blocks and stages.width"),
        (
            "nf-resnet-600",
            {"macs": 9.999e15, "by": ("family",)},
            "at most about .* input.test at 320 px, stages.width at 65,536 and 100 G parameters",
        ),
        ("nfnet-f0", {"macs": 1e9, "params": 1e10}, "images of about 6.15 px; .* from 32 to 8,192"),
        ("nfnet-f0", {"macs": 1e9, "params": 1e3}, "has at least about .* parameters by width"),
    ],
)
def test_a_budget_out_of_reach_ends_soon_at_the_nearest(name, budget, sentence, monkeypatch):
    calls = []
    plain = making.count

    def counting(plan):
        calls.append(len(plan.blocks))
        return plain(plan)

    monkeypatch.setattr(making, "count", counting)
    scaled = scale(nfspec.load(name), **budget)
    assert re.search(sentence, scaled.limit) and scaled.limit.isprintable()
    assert scaled.miss > 0.1 and nfspec.count(nfspec.resolve(scaled.spec)) == scaled.counted
    assert len(calls) < 3_000 and max(calls) <= 8  # blocks of one kind are counted once


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("nfnet-f0", {"macs": 8e15}),
        ("nfnet-f0", {"macs": 1e5}),
        ("timm/test_nfnet", {"params": 9e10}),
    ],
)
def test_a_budget_that_is_just_in_reach_is_met(name, budget):
    scaled = scale(nfspec.load(name), **budget)
    assert scaled.miss <= NEAR and scaled.limit == ""


@pytest.mark.parametrize(("by", "share"), [(("family",), 1e4), (("width", "depth", "size"), 1.02)])
def test_the_nearest_is_the_end_or_nearer(by, share):
    spec = nfspec.load("nf-resnet-600")
    for larger in (True, False):
        edge = end(spec, by, larger)
        macs = edge.macs * (share if larger else 1 / share)
        assert scale(spec, macs=macs, by=by).miss <= abs(edge.macs / macs - 1)  # above `NEAR`


def test_widths_end_at_the_languages_most():
    """No network about one of the widest is outside the language."""
    widths = {"stages.depth": [1, 1, 1, 1], "stages.width": [64, 64, 64, 65_536]}
    spec = nfspec.load("timm/test_nfnet", widths)
    own = making.counted(spec)
    budget = searching.Budget(1.01 * own.macs, None)
    for change in (searching._one_by_one, searching._together):
        found = change(own, spec, budget, 64, 0.0)
        assert max(found.spec.stages.width) == 65_536 and budget.miss(found) < 0.01


@pytest.mark.parametrize("name", ["nfnet-f7+", "nf-resnet-600", "nf-regnet-b8", "timm/nfnet_l0"])
def test_many_blocks_are_counted_by_few(name):
    for over in ({}, {"stages.kernel": [3, 5, 3, 7]}, {"agc.names": {"stages.2.blocks.5.*": 0.1}}):
        spec = nfspec.load(name, over)
        found, whole = making.counted(spec), nfspec.count(nfspec.resolve(spec))
        assert (found.macs, found.parameters) == (whole.macs, whole.parameters)
    betas = [[1.0] * blocks for blocks in spec.stages.depth]
    listed = nfspec.load(name, {"stages.beta": betas})
    assert making.counted(listed).macs == whole.macs


def test_a_network_with_too_much_of_something_is_not_counted():
    spec = nfspec.load("nfnet-f0")
    assert making.counted(making.with_fields(spec, stages={"depth": (2_000, 1, 1, 1)})) is None
    assert making.counted(making.with_fields(spec, stages={"width_factor": 60.0})) is None
    assert making.counted(None) is None


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        (
            1e-9,
            "takes at least about .* ms, with stages.depth at 4 blocks, input.test at 32 px and",
        ),
        (9_999, "takes at most about .* not one image fits the memory of h100$"),
    ],
)
def test_a_time_out_of_reach_is_a_sentence(seconds, sentence):
    tried = []
    spec = nfspec.load("nf-resnet-50")
    device = {"accelerator": "h100", "batch": 8, "by": ("width", "depth", "size")}
    if seconds > 1:
        device["by"] = ("width",)
    scaled = scale(spec, step=seconds, **device, progress=tried.append)
    assert re.search(sentence, scaled.limit) and scaled.miss > 0.5
    assert bool(tried) == (seconds > 1)  # the smallest is known without a search
    assert all(text.startswith("a network of ") for text in tried)


def test_both_budgets_are_met_by_sizes():
    scaled = scale(nfspec.load("nfnet-f0"), macs=20e9, params=100e6)
    assert scaled.counted.macs == pytest.approx(20e9, rel=0.03)
    assert scaled.counted.parameters == pytest.approx(100e6, rel=0.03)


def test_parameters_alone_leave_sizes_as_they_are():
    scaled = scale(nfspec.load("nf-resnet-50"), params=10e6)
    assert scaled.counted.parameters == pytest.approx(10e6, rel=0.03)
    assert not {("input", "train"), ("input", "test")} & {*scaled.changed}


def test_the_budget_of_the_parent_changes_nothing():
    for by in (("width", "depth", "size"), ("family",)):
        spec = nfspec.load("nf-regnet-b1")
        found = scale(spec, macs=nfspec.count(nfspec.resolve(spec)).macs, by=by)
        assert found.changed == {}


@pytest.mark.parametrize("n", [1, 3, 7])
def test_the_rule_of_the_family_makes_the_family(n):
    """The published F1 to F7 are that rule."""
    wanted = nfspec.load(f"nfnet-f{n}")
    macs = nfspec.count(nfspec.resolve(wanted)).macs
    found = scale(nfspec.load("nfnet-f0"), macs=macs, by=("family",)).spec
    fields, other = spec_fields(found), spec_fields(wanted)
    for path in MAY_CHANGE:
        assert fields[path] == other[path], path


def test_widths_alone_keep_their_proportions():
    scaled = scale(nfspec.load("nfnet-f0"), macs=3e9, by=("width",))
    widths = scaled.spec.stages.width
    assert scaled.spec.stages.depth == (1, 2, 6, 3) and scaled.counted.size == (256, 256)
    for width, old in zip(widths, (256, 512, 1536, 1536), strict=True):
        assert width / old == pytest.approx(widths[2] / 1536, rel=0.15)
        assert width % 8 == 0


def test_groups_fit_their_bottlenecks():
    for macs in (0.2e9, 1e9, 30e9):
        scaled = scale(nfspec.load("nfnet-f0"), macs=macs)
        for block in nfspec.resolve(scaled.spec).blocks:
            assert block.mid_channels >= 0.87 * block.requested_mid_channels


def test_exact_groups_divide():
    spec = nfspec.load("nfnet-f0", {"rounding.groups": "exact"})
    scaled = scale(spec, macs=1e9)
    assert scaled.miss <= 0.03


def test_sizes_or_depths_alone_come_as_near_as_they_can():
    assert scale(nfspec.load("nfnet-f0"), macs=30e9, by=("size",)).miss <= NEAR
    far = scale(nfspec.load("nfnet-f0"), macs=0.2e9, by=("depth",))
    assert far.miss > 1 and far.spec.stages.depth == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "give a budget"),
        ({"macs": -1}, "^macs: expected a finite number"),
        ({"macs": float("nan")}, "^macs: expected a finite number"),
        ({"params": 1e31}, "^params: expected a finite number"),
        ({"step": 0.1}, "^step: give accelerator"),
        ({"step": 0.0, "accelerator": "h100"}, "^step: expected a finite number above 0"),
        ({"step": 1.0, "accelerator": "abacus"}, "^accelerator: expected one of"),
        ({"step": 1.0, "accelerator": "h100", "batch": 0}, "^batch: "),
        ({"step": 1.0, "accelerator": "h100", "precision": "int4"}, "precision"),
        ({"macs": 1e9, "by": ("deep",)}, "^by: expected some of width, depth, size, or family"),
        ({"macs": 1e9, "by": ()}, "^by: expected some of"),
        ({"macs": 1e9, "by": ("family", "width")}, "^by: expected some of"),
        ({"params": 1e6, "by": ("size",)}, "sizes change no parameters"),
        ({"macs": 1e9, "params": 1e6, "by": ("width",)}, "both budgets at once need size"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(arguments, message):
    with pytest.raises(nfspec.InputError, match=message):
        nfspec.scale(nfspec.load("nfnet-f0"), **arguments)


def test_depths_end_at_the_largest_network():
    """The language states how many blocks it may have."""
    spec = nfspec.load("nf-resnet-152")
    deep = scale(spec, macs=20e12, by=("depth",))
    assert 1_990 <= sum(deep.spec.stages.depth) <= MAX_BLOCKS and deep.miss > 0.1


def test_listed_betas_are_in_the_way_of_depth():
    spec = nfspec.load("nfnet-nano", {"stages.beta": [[1.0], [1.0], [1.0, 0.9], [1.0]]})
    with pytest.raises(nfspec.InputError, match=r"stages\.beta lists a number for each block"):
        scale(spec, macs=1e9)
    assert scale(spec, macs=1e9, by=("width", "size")).miss <= 0.03


def test_training_images_keep_their_proportion():
    """To the nearest 32 px."""
    scaled = scale(nfspec.load("nfnet-f0"), macs=100e9, by=("size", "width"))
    size = scaled.spec.input
    assert size.test > 256 and abs(size.train - size.test * 192 / 256) <= 16
