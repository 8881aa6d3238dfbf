"""Memory of training: counted by hand, and against the batches that others found to fit."""

from dataclasses import replace

import pytest

import nfspec
from nfspec.cost.accelerators import GIB
from nfspec.cost.memory import USABLE, accumulation, largest_batch, training_bytes, training_memory

HEAD = 'schema = "nfspec/1"\nname = "mine"\nsource = "a test"\n'
SMALL = f"""{HEAD}
extends = "nfnet-f0"
stem = {{ width = [16], kernel = 3, stride = 2 }}
block.convs = 1
head = {{ conv = "none", classes = 10, dropout = 0.0 }}
[stages]
depth = [1]
width = [32]
stride = 1
group_width = 8
attention = "se"
"""
# timm's results/benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv: the batches of F0, F1, ... on
# 24 GB. timm tries the series until one fits.
SERIES = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8)
FITTED = {
    "timm/dm_nfnet_f": (384, 128, 64, 32, 24, 16, 8),
    "timm/nfnet_f": (512, 192, 96, 48, 24, 16, 12, 8),
}
SIZES = (192, 224, 256, 320, 384, 416, 448, 480)


def plan_of(name):
    return nfspec.resolve(nfspec.load(name))


@pytest.fixture(scope="module")
def f0():
    return plan_of("nfnet-f0")


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(SMALL)
    return plan_of(str(file))


def test_memory_counted_by_hand(small):
    """Two images of 32 px. The block's 16x16 arrays: what reads them backward is said below."""
    n = sum(parameter.size for parameter in small.parameters.values())
    vectors = sum(p.size for p in small.parameters.values() if len(p.shape) <= 1)
    pixels = 16 * 16
    kept = (
        32 * 32 * 3  # the image: stem conv
        + pixels * 16  # stem conv: the activation
        + pixels * 16  # the activation: conv0 and shortcut
        + 2 * 2 * pixels * 16  # conv0, conv1 and the activations after them
        + 2 * pixels * 32  # conv2: SE; SE: skip gain
        + pixels * 32  # the sum: the last activation
        + 32  # the mean: the classifier
    )
    # At the sum there are also its gradient's copy, and both branches'.
    memory = training_memory(small, 2, 32, "bfloat16", accumulate=True)
    assert [memory.parameters, memory.gradients, memory.momentum] == [4 * n] * 3
    assert (memory.average, memory.accumulated, memory.perturbed) == (4 * n, 4 * n, 0)
    assert memory.kernels == 2 * (n - vectors)
    assert memory.activations == 2 * 2 * kept
    assert 0 < memory.workspace <= 2 * 2 * 3 * pixels * 32
    assert training_bytes(small, 2, 32, "bfloat16", accumulate=True) == memory.total


@pytest.mark.parametrize("name", ["nfnet-f0", "timm/nf_resnet50", "nf-regnet-b0"])
def test_no_more_activations_are_kept_than_there_are(name):
    plan = plan_of(name)
    counted = nfspec.count(plan, 64).activation_bytes + 4 * 64 * 64 * plan.channels
    kept = training_memory(plan, 1, 64).activations
    assert counted / 2 < kept < counted
    assert training_memory(plan, 1, 64, "float16").activations == kept / 2


@pytest.mark.parametrize(
    ("name", "i", "batch"),
    [(name, i, batch) for name, batches in FITTED.items() for i, batch in enumerate(batches)],
)
def test_timms_batches_fit_into_24_gb_and_the_next_ones_do_not(name, i, batch):
    plan = plan_of(f"{name}{i}")
    plan = replace(plan, recipe=None)  # timm's runs have no average
    most = largest_batch(plan, 24 * GIB, SIZES[i], "float16")
    assert batch <= most
    if batch < SERIES[0]:
        assert most < SERIES[SERIES.index(batch) - 1]


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_largest_batch_is_the_last_that_fits(f0, accumulate):
    memory = 3 * 10**9
    most = largest_batch(f0, memory, 128, "bfloat16", accumulate)
    assert training_bytes(f0, most, 128, "bfloat16", accumulate) <= USABLE * memory
    assert training_bytes(f0, most + 1, 128, "bfloat16", accumulate) > USABLE * memory
    assert largest_batch(f0, 10**6) == 0


def test_micro_batches_are_as_few_as_fit_and_all_of_one_size(f0):
    memory = 3 * 10**9
    whole = largest_batch(f0, memory)
    part = largest_batch(f0, memory, accumulate=True)
    assert part < whole
    assert accumulation(f0, whole, memory) == 1
    batch = 2 * whole + 2
    parts = accumulation(f0, batch, memory)
    assert batch % parts == 0 and batch // parts <= part
    assert all(batch % fewer or batch // fewer > part for fewer in range(1, parts))


def test_kernels_in_parts_counted_by_hand():
    """Four parts: those of NFNet-F5 but for vectors, with its average and SAM."""
    plan = plan_of("nfnet-f5")
    vectors = sum(p.size for p in plan.parameters.values() if len(p.shape) <= 1)
    kernels = sum(p.size for p in plan.parameters.values()) - vectors
    how = {"precision": "bfloat16", "accumulate": True, "lanes": 128}
    whole, parts = (vars(training_memory(plan, 2, 64, **how, parts=n)) for n in (1, 4))
    kept = ("parameters", "momentum", "average", "accumulated", "perturbed")
    assert {parts[name] for name in kept} == {4 * (vectors + kernels // 4)}
    assert {whole[name] for name in kept} == {4 * (vectors + kernels)}
    others = set(whole) - {*kept}
    assert {name: parts[name] for name in others} == {name: whole[name] for name in others}


def test_kernels_that_do_not_divide_are_whole(small):
    """Neither are the classifier's 10 outputs in four parts, nor any kernel in three."""
    n = sum(parameter.size for parameter in small.parameters.values())
    vectors = sum(p.size for p in small.parameters.values() if len(p.shape) <= 1)
    stays = vectors + 32 * 10
    four, three = (training_memory(small, 2, 32, parts=parts) for parts in (4, 3))
    assert four.momentum == 4 * (stays + (n - stays) // 4)
    assert three == training_memory(small, 2, 32)


def test_more_fits_with_kernels_in_parts(f0):
    memory = 900 * 10**6  # parameters, momentum, average and gradients are 1.14 GB
    assert largest_batch(f0, memory, 64) == 0
    most = largest_batch(f0, memory, 64, parts=8)
    assert training_bytes(f0, most, 64, parts=8) <= USABLE * memory
    assert training_bytes(f0, most + 1, 64, parts=8) > USABLE * memory
    assert accumulation(f0, most, memory, 64, parts=8) == 1
    assert accumulation(f0, 2 * most, memory, 64, parts=8) > 1
    with pytest.raises(nfspec.InputError, match="one image of 64 px needs"):
        accumulation(f0, most, memory, 64)


def test_an_image_too_small_is_refused(f0):
    spec = nfspec.load("nfnet-f0")
    stem = spec.stem.model_copy(update={"padding": "valid"})
    plan = nfspec.resolve(spec.model_copy(update={"stem": stem}))
    with pytest.raises(nfspec.InputError, match=r"image of 4x4 px: nothing is left of it at stem"):
        training_bytes(plan, 1, 4)
