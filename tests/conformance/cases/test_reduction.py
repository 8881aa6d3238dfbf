"""Networks cut down: small, and in nothing else unlike the whole."""

import pytest

import nfspec
from nfspec import plan as p
from nfspec.conformance.cases.reduction import CLASSES, IMAGES, recipe_of, reduced_plan
from nfspec.language.loader import load

from specs import HEAD, write


def conventions(plan):
    """The conventions that two networks of one kind share, whatever their width."""
    kinds = set()
    for op in plan.ops:
        match op:
            case p.WSConv():
                kept = (op.eps, op.eps_rule, op.ddof, op.padding, op.gamma, op.dtype)
            case p.Activation():
                kept = (op.kind, op.slope, op.gamma, op.beta_at)
            case p.SqueezeExcite():
                kept = (op.gain, op.activation, op.slope, op.gamma)
            case p.Pool():
                kept = (op.kind, op.window, op.stride, op.padding)
            case p.ECA():
                kept = (op.gain,)
            case p.Residual():
                kept = (op.skip_gain, op.skip_gain_init)
            case _:
                continue
        kinds.add((type(op).__name__, *kept))
    return kinds


@pytest.mark.parametrize("name", nfspec.variants())
def test_every_variant(name):
    spec = load(name)
    whole, cut = nfspec.resolve(spec), reduced_plan(spec)
    assert {row.stage for row in cut.blocks} == {row.stage for row in whole.blocks}
    assert sum(q.size for q in cut.parameters.values()) < 100_000
    grouped = {row.stage for row in whole.blocks if row.groups > 1}
    assert all(row.groups > 1 for row in cut.blocks if row.stage in grouped)
    assert conventions(cut) == conventions(whole)
    assert cut.agc.model_copy(update={"enabled": whole.agc.enabled}) == whole.agc
    assert cut.parameters["head.fc.bias"].shape == (CLASSES,)


@pytest.mark.parametrize("name", ["nfnet-f0", "timm/dm_nfnet_f0", "nf-regnet-b0"])
def test_the_second_stage_has_a_beta_that_is_not_1(name):
    cut = reduced_plan(load(name))
    assert any(row.beta != 1.0 for row in cut.blocks)
    assert [row.stage for row in cut.blocks] == [0, 1, 1, 2, 3]


def stem(name):
    plan = reduced_plan(load(name))
    return [op.out_channels for op in plan.ops if op.name.startswith("stem.conv")], plan


@pytest.mark.parametrize("name", ["nfnet-f0", "nfnet-f3", "timm/dm_nfnet_f0"])
def test_the_stem_is_one_that_the_original_makes(name):
    """It is given the stages' widths alone: 16, 32, 64, and half of the first."""
    widths, plan = stem(name)
    assert widths == [16, 32, 64, plan.blocks[0].out_channels // 2]


def test_another_deep_stem_is_narrowed_by_one_factor():
    assert stem("timm/test_nfnet")[0] == [4, 8, 16, 32]
    assert stem("nfnet-nano")[0] == [8, 16, 32]
    assert stem("nf-resnet-50")[0] == stem("timm/nf_regnet_b0")[0] == [16]


def test_the_name_is_its_own():
    spec = load("nfnet-f0")
    assert reduced_plan(spec).name == "nfnet-f0-reduced"
    assert reduced_plan(spec).digest != nfspec.resolve(spec).digest
    long = spec.model_copy(update={"name": "n" * 80})
    assert reduced_plan(long).name == "n" * 72 + "-reduced"


def test_nothing_is_dropped_and_gradients_are_clipped():
    cut = reduced_plan(load("nfnet-f0"))
    assert not any(op.rate for op in cut.ops if isinstance(op, p.StochasticDepth | p.Dropout))
    assert cut.agc.enabled


def test_drops_are_at_the_specs_rates_if_asked_for():
    spec = load("nfnet-f0")
    cut = reduced_plan(spec, drops=True)
    rates = [op.rate for op in cut.ops if isinstance(op, p.StochasticDepth)]
    assert rates == pytest.approx([spec.stochastic_depth.rate * i / 5 for i in range(1, 5)])
    assert [op.rate for op in cut.ops if isinstance(op, p.Dropout)] == [spec.head.dropout]
    assert cut.parameters == reduced_plan(spec).parameters


def test_the_recipe_is_the_specs_at_a_high_rate():
    spec = load("nfnet-f0")
    recipe = recipe_of(spec)
    assert (recipe.batch, recipe.learning_rate, recipe.warmup_epochs) == (IMAGES, 0.2, 0.0)
    assert recipe.momentum == spec.recipe.momentum
    assert recipe.label_smoothing == spec.recipe.label_smoothing
    assert recipe_of(load("timm/test_nfnet")) == recipe


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A spec of one's own, four stages of it."""
    monkeypatch.chdir(tmp_path)
    return lambda text: load(write(HEAD + "[stages]\n" + text))


def test_lists_of_beta_are_cut_with_their_blocks(own):
    spec = own(
        """depth = [2, 3, 1, 2]
beta = [[1.0, 0.9], [0.8, 0.7, 0.6], [0.5], [0.4, 0.3]]
"""
    )
    cut = reduced_plan(spec)
    assert [row.beta for row in cut.blocks] == [1.0, 0.8, 0.7, 0.5, 0.4]


def test_stages_that_differ(own):
    """Odd widths, alphas of their own, attention in some: widths alone are cut."""
    spec = own(
        """depth = [1, 2, 4, 2]
width = [63, 135, 255, 387]
group_width = [7, 9, 21, 27]
alpha = [0.2, 0.25, 0.3, 0.2]
attention = ["eca", "se", "se", "none"]
"""
    )
    cut = reduced_plan(spec)
    assert [row.alpha for row in cut.blocks] == [0.2, 0.25, 0.25, 0.3, 0.2]
    kinds = {cut.section(op): type(op) for op in cut.ops if isinstance(op, p.ECA | p.SqueezeExcite)}
    assert [kinds.get(row.name) for row in cut.blocks] == [
        p.ECA,
        *[p.SqueezeExcite] * 3,
        None,
    ]
    assert all(row.groups > 1 for row in cut.blocks)


def test_fewer_stages(own):
    spec = own(
        """depth = [3, 1]
width = [64, 128]
stride = [1, 2]
group_width = [16, 32]
alpha = 0.2
attention = "se"
"""
    )
    assert [row.stage for row in reduced_plan(spec).blocks] == [0, 1]
