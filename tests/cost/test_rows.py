"""Memory and operations of training steps beside those of programs that the TPU's compiler made."""

from dataclasses import replace

import pytest

import nfspec
from nfspec.cost.memory import largest_batch, training_memory
from nfspec.cost.roofline import works
from nfspec.cost.rows import LANES

# Steps in bfloat16 by `nfspec lower`, libtpu 0.0.42, JAX 0.10.2, November 2026: images on a device,
# their side in px, what is computed again, devices that kernels are in parts over; bytes at the
# fullest moment, operations.
COMPILED = {
    ("nfnet-nano", "v3", 64, 160, "none", 1): (1_261_886_464, 242_583_896_064),
    ("nfnet-nano", "v3", 64, 160, "block", 1): (690_000_000, None),
    ("nf-regnet-b0", "v3", 64, 192, "none", 1): (1_117_902_848, 130_438_832_128),
    ("nf-resnet-50", "v3", 32, 224, "none", 1): (1_452_029_952, 763_783_806_976),
    ("nf-resnet-50", "v4", 64, 224, "none", 1): (2_552_845_824, 1_526_611_705_856),
    ("nfnet-f0", "v3", 32, 192, "none", 1): (2_058_293_248, 1_323_602_935_808),
    ("nfnet-f0", "v5e", 32, 192, "none", 1): (2_041_297_408, 1_324_009_783_296),
    ("nfnet-f3", "v3", 32, 320, "none", 1): (12_484_638_720, 12_983_257_268_224),
    ("nfnet-f3", "v3", 32, 320, "block", 1): (5_293_323_264, 17_152_625_082_368),
    ("nfnet-f6", "v3", 32, 448, "block", 1): (13_516_524_544, 69_087_317_196_800),
    ("nfnet-f0", "v3", 32, 192, "none", 8): (1_405_371_392, 1_321_051_488_256),
    ("nfnet-f0", "v5e", 32, 192, "none", 4): (1_476_125_696, 1_321_687_973_888),
    ("nfnet-f3", "v3", 32, 320, "none", 8): (10_275_094_528, 12_973_485_588_480),
    ("nfnet-f6", "v5e", 32, 448, "block", 1): (13_468_635_136, 70_245_800_738_816),
    ("nfnet-f3", "v5e", 32, 320, "none", 4): (10_590_245_376, 12_974_544_650_240),
    ("nfnet-f3", "v4", 32, 320, "none", 1): (12_470_524_928, 12_983_257_268_224),
    ("nfnet-f6", "v3", 32, 448, "block", 8): (7_708_941_312, 69_053_519_495_168),
    ("nfnet-f6", "v5e", 32, 448, "block", 4): (8_392_525_824, 69_478_092_111_872),
}
SMALL = {"nfnet-nano", "nf-regnet-b0"}  # where other operations than products are a twentieth


def plan_of(name, remat):
    plan = nfspec.resolve(nfspec.load(name))
    return replace(plan, recipe=plan.recipe.model_copy(update={"remat": remat}))


@pytest.mark.parametrize("key", COMPILED, ids=lambda key: f"{key[0]}-{key[1]}-{key[4]}-{key[5]}")
def test_a_compiled_step(key):
    name, _, batch, size, remat, parts = key
    bytes, flops = COMPILED[key]
    plan = plan_of(name, remat)
    memory = training_memory(plan, batch, size, "bfloat16", lanes=LANES, parts=parts)
    assert memory.total == pytest.approx(bytes, rel=0.15)
    if flops is not None:
        counted = sum(work.flops for work in works(plan, batch, size, "bfloat16"))
        recipe = plan.recipe
        counted *= 1 + recipe.sam_fraction if recipe.sam_rho else 1  # its ascent
        assert counted == pytest.approx(flops, rel=0.08 if name in SMALL else 0.02)


@pytest.mark.parametrize("remat", ["none", "block", "stage"])
@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "nf-resnet-50"])
def test_memory_grows_with_the_batch_and_what_fits_is_found(name, remat):
    plan = plan_of(name, remat)
    needs = [training_memory(plan, n, 96, "bfloat16", lanes=LANES).total for n in range(1, 40)]
    assert needs == sorted(needs)
    most = largest_batch(plan, 10**10, 96, "bfloat16", lanes=LANES)
    fits = [training_memory(plan, most + n, 96, "bfloat16", lanes=LANES).total for n in (0, 1)]
    assert fits[0] <= 0.91e10 < fits[1]


def test_what_is_computed_again_takes_less_memory():
    none, block, stage = (
        training_memory(plan_of("nfnet-f0", remat), 32, None, "bfloat16", lanes=LANES)
        for remat in ("none", "block", "stage")
    )
    assert block.total < none.total and stage.total < none.total
    assert block.parameters == none.parameters


def test_rows_are_padded():
    """Outputs of the first conv, 16 channels: 32 images lie in rows of 128, as 64 and 128 do."""
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    stem = replace(plan, ops=plan.ops[:1])
    kept = [
        training_memory(stem, n, 32, "bfloat16", lanes=LANES).activations for n in (32, 64, 128)
    ]
    images = [2 * 32 * 32 * min(128 * 8, n * 128) for n in (32, 64, 128)]
    assert kept == [2 * 16 * 16 * 128 * 16 + image for image in images]
