"""Whatever leaves as a network of its own, at several sizes, against the float64 reference.

An output's distance is the relative L2 norm of its difference from the reference. Its bound is
three times the distance that rounding gives a correct network: the root mean square of runs of the
reference with every operation perturbed (`nfspec.reference.rounding`), at all sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import reference
from nfspec.conformance.compare import SAMPLES, SIGMAS, Images, Progress, distance
from nfspec.data.images import normalise
from nfspec.language.graph import Input
from nfspec.plan import Plan
from nfspec.plan.initialise import Params
from nfspec.reference.rounding import Rounding

# Images, height and width. Odd and even, and not square: a wrong padding shows at one of them.
SIZES = ((1, 64, 64), (2, 65, 48), (3, 33, 71))
LOGITS = "logits"

Noise = Callable[[int], Rounding]
Run = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Row:
    """One output at one size: its distance from the reference, and its bound.

    Attributes:
        runtime: Name of what ran the network, where several do.
        problem: The reason why the network did not run at this size; empty if it ran.
    """

    batch: int
    height: int
    width: int
    distance: float
    bound: float
    output: str = LOGITS
    runtime: str = ""
    problem: str = ""

    @property
    def within(self) -> bool:
        return self.distance <= self.bound

    @property
    def size(self) -> str:
        return f"{self.batch} x {self.height} x {self.width} px"


def prove(
    plan: Plan,
    params: Params,
    logits: Callable[[Images], Images],
    progress: Progress = lambda message: None,
    sizes: Sequence[tuple[int, int, int]] = SIZES,
    seed: int = 0,
) -> tuple[Row, ...]:
    """Compare a network's logits with the reference.

    Args:
        plan, params: The network, and the weights in it.
        logits: A function of images, (N, H, W, C), that returns (N, classes).
        progress: A function that is called with a line for each step.
        sizes: Images, height and width in px of each comparison.
        seed: Random seed of the images.
    """
    runs: dict[str, Run] = {"": lambda images: {LOGITS: logits(images)}}
    return prove_outputs(plan, params, runs, (LOGITS,), sizes, progress, seed=seed)


def prove_outputs(
    plan: Plan,
    params: Params,
    runs: Mapping[str, Run],
    outputs: Sequence[str],
    sizes: Sequence[tuple[int, int, int]],
    progress: Progress = lambda message: None,
    *,
    seed: int = 0,
    pixels: Input | None = None,
    noise: Noise = Rounding,
    survives: type[Exception] | tuple[()] = (),
) -> tuple[Row, ...]:
    """Compare a network's outputs with the reference.

    Args:
        plan, params: The network, and the weights in it.
        runs: Name to a function of images, (N, H, W, C), that returns outputs by name, images NHWC.
        outputs: Names of the taps to compare.
        sizes: Images, height and width in px of each comparison.
        progress: A function that is called with a line for each step.
        seed: Random seed of the images.
        pixels: How pixels become images, where the network takes pixels, uint8.
        noise: A function of a seed: the rounding that the network's arithmetic has.
        survives: The errors of those functions that are a row's problem and not the caller's.
    """
    rng, taps = np.random.default_rng(seed), {name: plan.taps[name] for name in outputs}
    perturbed = -(-SAMPLES // len(sizes))  # runs at each size
    squares: dict[str, list[float]] = {name: [] for name in outputs}
    found: list[tuple[tuple[int, int, int], float, str, str, str]] = []
    for size in sizes:
        given, images = _images(rng, (*size, plan.channels), pixels)
        progress(f"float64 reference, {size[0]} x {size[1]} x {size[2]} px ...")
        exact = reference.forward(plan, params, images, taps)
        for _ in range(perturbed):
            rounding = noise(len(squares[outputs[0]]))
            for name, value in reference.forward(plan, params, images, taps, rounding).items():
                squares[name].append(distance(value, exact[name]) ** 2)
        for runtime, run in runs.items():
            problem = ""
            values: Mapping[str, NDArray[Any]] = {}
            try:
                values = run(given)
            except survives as error:
                problem = str(error) or type(error).__name__
            for name in outputs:
                gap = distance(np.asarray(values[name]), exact[name]) if name in values else np.inf
                found.append((size, gap, name, runtime, problem))
    bound = {name: SIGMAS * float(np.sqrt(np.mean(each))) for name, each in squares.items()}
    return tuple(Row(*size, gap, bound[name], name, *rest) for size, gap, name, *rest in found)


def _images(
    rng: np.random.Generator, shape: tuple[int, ...], pixels: Input | None
) -> tuple[NDArray[Any], Images]:
    """Images as the network takes them, and as the reference does."""
    if pixels is None:
        images = rng.standard_normal(shape).astype(np.float32)
        return images, images
    given = rng.integers(0, 256, shape, np.uint8)
    return given, np.stack([normalise(image, pixels) for image in given])
