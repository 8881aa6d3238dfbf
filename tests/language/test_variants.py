"""The built-in networks against the counts and the tables of those who published them.

data/variants.json: `deepmind` was counted with deepmind-research/nfnets at f5de0ed, `timm` with
timm 1.0.31, whose configurations it has too. The literals are those of the original's tables,
base.py and experiment_nfnets.py.
"""

import json
from pathlib import Path

import pytest

from nfspec.language.loader import dialects, load, variants
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve

COUNTS = json.loads((Path(__file__).parent.parent / "data" / "variants.json").read_text())
FAMILIES = {"nfnet": "nfnet-", "nf_regnet": "nf-regnet-", "nf_resnet": "nf-resnet-"}
FAMILIES["nf_seresnet"] = "nf-seresnet-"


def ours(name: str) -> str:
    """Our name for a network of DeepMind's: `nfnet/F0+` is `nfnet-f0+`."""
    family, _, variant = name.partition("/")
    return FAMILIES[family] + variant.removeprefix("ResNet").lower()


DEEPMIND = {ours(name): counts for name, counts in COUNTS["deepmind"].items()}
OURS = "nfnet-nano"  # for small images; nobody else has it
TIMM = {f"timm/{name}": entry for name, entry in COUNTS["timm"].items()}

# train px, test px, dropout, RandAugment as the original's three digits or more: 405 is 4 layers of
# magnitude 5.
NFNETS = {
    "nfnet-f0": (192, 256, 0.2, 405),
    "nfnet-f1": (224, 320, 0.3, 410),
    "nfnet-f2": (256, 352, 0.4, 410),
    "nfnet-f3": (320, 416, 0.4, 415),
    "nfnet-f4": (384, 512, 0.5, 415),
    "nfnet-f5": (416, 544, 0.5, 415),
    "nfnet-f6": (448, 576, 0.5, 415),
    "nfnet-f7": (480, 608, 0.5, 415),
}
REGNETS = {
    "nf-regnet-b0": (192, 224, 0.2),
    "nf-regnet-b1": (224, 256, 0.2),
    "nf-regnet-b2": (240, 272, 0.3),
    "nf-regnet-b3": (288, 320, 0.3),
    "nf-regnet-b4": (320, 384, 0.4),
    "nf-regnet-b5": (384, 456, 0.4),
    "nf-regnet-b6": (448, 528, 0.5),
    "nf-regnet-b7": (512, 600, 0.5),
    "nf-regnet-b8": (600, 672, 0.5),
}


def test_the_networks_are_those_that_were_counted_in_a_natural_order():
    resnets = ("50", "101", "152", "200", "288", "600")
    assert variants() == (
        *(f"nfnet-f{n}" for n in range(8)),
        *(f"nfnet-f{n}+" for n in range(8)),
        "nfnet-f4+paper",
        "nfnet-nano",
        *(f"nf-regnet-b{n}" for n in range(9)),
        *(f"nf-resnet-{n}" for n in resnets),
        *(f"nf-seresnet-{n}" for n in resnets),
        *(f"timm/dm_nfnet_f{n}" for n in range(7)),
        *(f"timm/eca_nfnet_l{n}" for n in range(4)),
        *(f"timm/nf_ecaresnet{n}" for n in (26, 50, 101)),
        *(f"timm/nf_regnet_b{n}" for n in range(6)),
        *(f"timm/nf_resnet{n}" for n in (26, 50, 101)),
        *(f"timm/nf_seresnet{n}" for n in (26, 50, 101)),
        *(f"timm/nfnet_f{n}" for n in range(8)),
        "timm/nfnet_l0",
        "timm/test_nfnet",
    )
    assert set(variants()) - {OURS} == {*DEEPMIND, *TIMM}
    assert dialects() == ("deepmind", "timm", "timm-dm")


@pytest.mark.parametrize("name", [name for name in variants() if name != OURS])
def test_parameters_are_exactly_as_published(name):
    spec = load(name)
    assert spec.name == name
    assert spec.source
    assert count(resolve(spec)).parameters == {**DEEPMIND, **TIMM}[name]["params"]


@pytest.mark.parametrize("name", [name for name in DEEPMIND if "macs" in DEEPMIND[name]])
def test_multiply_accumulates_are_as_published(name):
    spec, size = load(name), DEEPMIND[name]["size"]
    assert spec.input.test == size
    actual, published = count(resolve(spec)).macs, DEEPMIND[name]["macs"]
    if size % 32 == 0:
        assert actual == published
    else:
        # Four or five halvings leave no whole number of pixels. The original's count takes the
        # fraction; a network has the pixel.
        assert published < actual < 1.1 * published


@pytest.mark.parametrize("name", NFNETS)
def test_sizes_dropout_and_augmentation_of_the_nfnets(name):
    train, test, dropout, augment = NFNETS[name]
    names = [name, f"{name}+"] + ["nfnet-f4+paper"] * (name == "nfnet-f4")
    for spec in map(load, names):
        assert (spec.input.train, spec.input.test, spec.head.dropout) == (train, test, dropout)
        recipe = spec.recipe
        assert (recipe.randaugment_layers, recipe.randaugment_magnitude) == divmod(augment, 100)
        assert spec.stochastic_depth.rate == 0.25


@pytest.mark.parametrize("name", REGNETS)
def test_sizes_and_dropout_of_the_regnets(name):
    spec = load(name)
    assert (spec.input.train, spec.input.test, spec.head.dropout) == REGNETS[name]
    assert spec.stochastic_depth.rate == 0.1
    level = int(name[-1])
    if level <= 5:  # experiment_nf_regnets.py has no recipe beyond B5
        assert spec.recipe.weight_decay == pytest.approx(5e-5 + 1e-5 * level, rel=1e-12)


@pytest.mark.parametrize("name", TIMM)
def test_input_of_timms(name):
    spec, entry = load(name), TIMM[name]
    assert [spec.input.channels, spec.input.train, spec.input.train] == entry["input_size"]
    test = entry["test_input_size"] or entry["input_size"]
    assert [spec.input.channels, spec.input.test, spec.input.test] == test
    # At their test sizes, timm's `test_crop_pct` (not in the table) keeps all of the L networks.
    assert spec.input.crop == (1.0 if "nfnet_l" in name else entry["crop_pct"])
    assert spec.input.resize == entry["crop_mode"]
    assert (list(spec.input.mean), list(spec.input.std)) == (entry["mean"], entry["std"])


@pytest.mark.parametrize("name", TIMM)
def test_wiring_of_timms(name):
    spec, cfg = load(name), TIMM[name]["cfg"]
    assert list(spec.stages.depth) == cfg["depths"]
    assert list(spec.stages.width) == cfg["channels"]
    assert spec.stages.width_factor == cfg["width_factor"]
    assert spec.stages.expansion == cfg["bottle_ratio"]
    assert spec.stages.group_width == (cfg["group_size"] or "none")
    assert spec.stages.alpha == cfg["alpha"]
    assert spec.stages.attention == (cfg["attn_layer"] or "none")
    assert spec.attention.gain == cfg["attn_gain"]
    assert spec.attention.position == ("mid" if cfg["reg"] else "last")
    assert spec.block.mid_from == ("in" if cfg["reg"] else "out")
    assert spec.block.convs == (2 if cfg["extra_conv"] else 1)
    assert spec.block.skip_gain == cfg["skipinit"]
    assert spec.block.conv2_gain_init == (1.0 if cfg["skipinit"] else 0.0)
    assert spec.rounding.divisor == cfg["ch_div"]
    assert (spec.ws.eps, spec.ws.eps_rule) == (cfg["std_conv_eps"], "add")
    assert spec.activation.kind == {"gelu": "gelu_erf"}.get(cfg["act_layer"], cfg["act_layer"])
    assert spec.activation.gamma_at == ("activation" if cfg["gamma_in_act"] else "weight")
    assert spec.conv.padding == spec.stem.padding
    assert spec.conv.padding == ("same" if cfg["same_padding"] else "symmetric")
    assert spec.stem.pool == ("max" if cfg["stem_type"] == "7x7_pool" else "none")
    if cfg["attn_layer"] == "se":
        assert spec.se.ratio == cfg["attn_kwargs"]["rd_ratio"]


def test_our_own_small_network_is_small_and_knows_how_it_is_trained():
    spec = load(OURS)
    assert count(resolve(spec)).parameters < 1_500_000
    assert (spec.input.train, spec.input.test) == (32, 32)
    assert spec.recipe is not None and spec.recipe.precision == "float32"
    assert spec.finetune is not None
