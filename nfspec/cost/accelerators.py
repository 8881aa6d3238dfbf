"""Figures of accelerators as their makers publish them, and training steps measured on some.

A device is what frameworks see as one: a core of a TPU v3, a whole chip of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.cost.rows import LANES
from nfspec.errors import InputError, suggest

GIB = 2**30


@dataclass(frozen=True)
class Timing:
    """A measured training step: forward and backward pass, clipping, update.

    Attributes:
        variant: A built-in network.
        size: Side of its images, px.
        batch: Images on each device.
        seconds: Time of one step, on every device together.
    """

    variant: str
    size: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Accelerator:
    """The peak figures of one device.

    Attributes:
        name: Its name on the command line.
        narrow_flops: Multiplications and additions in bfloat16 or float16 a second, zeros not
            skipped ("dense").
        flops: The same in float32, as frameworks multiply it where nothing else is asked for: TF32
            on GPUs that have it, one pass in bfloat16 on TPUs.
        bandwidth: Bytes a second to and from its memory.
        memory: Bytes; what makers call a GB is 2**30 of them.
        link: Bytes a second out of a device to others, over all its links; 0: it has none.
        tile: Sizes that a matrix product is rounded up to: rows, columns, terms of each sum. The
            kernels of a GPU make tiles of 128 x 64 outputs; a TPU's matrix unit is 128 x 128.
        lanes: Numbers in a row of memory, which arrays of images are padded to; 0: there are none.
        units: Tiles in work at a time; a GPU's multiprocessors.
        source: Source of these figures.
        timings: Steps that were measured on it.
        precision: Precision of these steps.
        devices: Number of devices that ran them, with gradients summed over all.
        splits: True if a batch that did not fit was accumulated from micro-batches; False if parts
            of it were recomputed.
        timings_source: Source of the timed steps.
        like: The accelerator whose share of the roofline is assumed if there are no timings.
    """

    name: str
    narrow_flops: float
    flops: float
    bandwidth: float
    memory: int
    link: float
    tile: tuple[int, int, int]
    units: int
    source: str
    timings: tuple[Timing, ...] = ()
    precision: str = "bfloat16"
    devices: int = 1
    splits: bool = False
    timings_source: str = ""
    like: str = ""
    lanes: int = 0


def _timings(
    family: str, batches: tuple[int, ...], seconds: tuple[float, ...]
) -> tuple[Timing, ...]:
    """Steps of F0, F1, ... at their training sizes (arXiv:2102.06171 table 1)."""
    sizes = (192, 224, 256, 320, 384, 416)
    rows = zip(sizes, batches, seconds, strict=True)
    return tuple(Timing(f"{family}{i}", *row) for i, row in enumerate(rows))


# arXiv:2102.06171 table 3; appendix A.2: medians of 5,000 steps of 32 images a device. On 32 TPU
# cores in bfloat16, gradients summed; what did not fit into 16 GB was recomputed, as the compiler
# chose. On one V100 in float16; what did not fit was accumulated from micro-batches, whose size is
# not given. The V100 is taken for one of 16 GB, which is not given either.
TPU_STEPS = (0.0733, 0.1585, 0.2958, 0.5322, 1.0333, 1.3985)
V100_STEPS = (0.0567, 0.1339, 0.2263, 0.5245, 1.1906, 2.1771)
# timm's results/benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv: images a second of dm_nfnet_f0
# to f5, at the largest batch of timm's series that fitted. (In channels_last they are 2.4 times as
# slow, for cuDNN's grouped convs.)
RTX_BATCHES = (384, 128, 64, 32, 24, 16)
RTX_SPEEDS = (600.1, 244.51, 125.2, 57.26, 31.4, 20.95)

_GPU_TILE, _TPU_TILE = (128, 64, 32), (8, 128, 128)

_ALL = (
    Accelerator(
        "tpu-v3",
        narrow_flops=61.5e12,
        flops=61.5e12,
        bandwidth=450e9,
        memory=16 * GIB,
        link=166e9,  # a pod's all-reduce bandwidth of 340 TB/s over its 2,048 cores
        tile=_TPU_TILE,
        lanes=LANES,
        units=1,
        source="cloud.google.com/tpu/docs/v3, half a chip: 123 TFLOP/s, 900 GB/s, 32 GiB",
        timings=_timings("nfnet-f", (32,) * 6, TPU_STEPS),
        devices=32,
        timings_source="arXiv:2102.06171 table 3",
    ),
    Accelerator(
        "tpu-v4",
        narrow_flops=275e12,
        flops=275e12,
        bandwidth=1.2e12,
        memory=32 * GIB,
        link=268e9,  # a pod's all-reduce bandwidth of 1.1 PB/s over its 4,096 chips
        tile=_TPU_TILE,
        lanes=LANES,
        units=1,
        source="cloud.google.com/tpu/docs/v4",
        like="tpu-v3",
    ),
    Accelerator(
        "tpu-v5e",
        narrow_flops=197e12,
        flops=197e12,
        bandwidth=819e9,
        memory=16 * GIB,
        link=200e9,  # a pod's all-reduce bandwidth of 51.2 TB/s over its 256 chips
        tile=_TPU_TILE,
        lanes=LANES,
        units=1,
        source="cloud.google.com/tpu/docs/v5e",
        like="tpu-v3",
    ),
    Accelerator(
        "v100",
        narrow_flops=125e12,
        flops=15.7e12,
        bandwidth=900e9,
        memory=16 * GIB,
        link=150e9,
        tile=_GPU_TILE,
        units=80,
        source="NVIDIA V100 datasheet, SXM2 of 16 GB",
        timings=_timings("nfnet-f", (32,) * 6, V100_STEPS),
        precision="float16",
        splits=True,
        timings_source="arXiv:2102.06171 table 3",
    ),
    Accelerator(
        "rtx-3090",
        narrow_flops=71e12,  # added up in float32
        flops=35.6e12,
        bandwidth=936e9,
        memory=24 * GIB,
        link=56e9,
        tile=_GPU_TILE,
        units=82,
        source="NVIDIA Ampere GA102 whitepaper",
        timings=_timings(
            "timm/dm_nfnet_f",
            RTX_BATCHES,
            tuple(b / speed for b, speed in zip(RTX_BATCHES, RTX_SPEEDS, strict=True)),
        ),
        precision="float16",
        timings_source="timm's results, PyTorch 1.12, channels first",
    ),
    Accelerator(
        "a100-40gb",
        narrow_flops=312e12,
        flops=156e12,
        bandwidth=1.555e12,
        memory=40 * GIB,
        link=300e9,
        tile=_GPU_TILE,
        units=108,
        source="NVIDIA A100 datasheet, SXM4",
        like="rtx-3090",
    ),
    Accelerator(
        "a100-80gb",
        narrow_flops=312e12,
        flops=156e12,
        bandwidth=2.039e12,
        memory=80 * GIB,
        link=300e9,
        tile=_GPU_TILE,
        units=108,
        source="NVIDIA A100 datasheet, SXM4",
        like="rtx-3090",
    ),
    Accelerator(
        "h100",
        narrow_flops=989e12,
        flops=495e12,
        bandwidth=3.35e12,
        memory=80 * GIB,
        link=450e9,
        tile=_GPU_TILE,
        units=132,
        source="NVIDIA H100 datasheet, SXM, without sparsity",
        like="rtx-3090",
    ),
    Accelerator(
        "h200",
        narrow_flops=989e12,
        flops=495e12,
        bandwidth=4.8e12,
        memory=140 * GIB,
        link=450e9,
        tile=_GPU_TILE,
        units=132,
        source="NVIDIA H200 datasheet, SXM, without sparsity",
        like="rtx-3090",
    ),
    # Not published: measured, as `nfspec bench` does, of the two cores that benchmarks/results is
    # from; the command puts its own machine's figures in their place. Its steps are those of
    # PyTorch, TensorFlow and JAX.
    Accelerator(
        "cpu",
        narrow_flops=202e9,
        flops=202e9,
        bandwidth=28e9,
        memory=16 * GIB,
        link=0.0,
        tile=(1, 1, 1),
        units=1,
        source="measured: a product of matrices and a copy, by NumPy",
        timings=tuple(Timing("nfnet-f0", 192, 4, seconds) for seconds in (1.27, 1.29, 1.76)),
        precision="float32",
        timings_source="nfspec's benchmarks/results/BENCH.md",
    ),
)
ACCELERATORS = {each.name: each for each in _ALL}


def named(name: str) -> Accelerator:
    """The accelerator of a name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        raise InputError(
            f"accelerator: expected one of {known}; found {name!r}{suggest(name, ACCELERATORS)}"
        )
    return ACCELERATORS[name]
