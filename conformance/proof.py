"""Whatever leaves as a network of its own, at several sizes, against the float64 reference.

Its logits' distance is the relative L2 norm of their difference from the reference, and the bound
is that of `compare`: three times the distance that float32 rounding gives a correct network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nfspec import reference
from nfspec.conformance.compare import Images, Progress, bounds, distance
from nfspec.plan import Plan
from nfspec.plan.initialise import Params

# Images, height and width. Odd and even, and not square: a wrong padding shows at one of them.
SIZES = ((1, 64, 64), (2, 65, 48), (3, 33, 71))
LOGITS = "logits"


@dataclass(frozen=True)
class Row:
    """One size: the distance of the logits from the reference, and its bound."""

    batch: int
    height: int
    width: int
    distance: float
    bound: float

    @property
    def within(self) -> bool:
        return self.distance <= self.bound


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
    rng = np.random.default_rng(seed)
    rows = []
    for batch, height, width in sizes:
        images = rng.standard_normal((batch, height, width, plan.channels)).astype(np.float32)
        size = f"{batch} x {height} x {width} px"
        progress(f"float64 reference, {size} ...")
        taps = {LOGITS: plan.taps[LOGITS]}
        exact = reference.forward(plan, params, images, taps)
        bound = bounds(plan, params, images, exact, lambda line: progress(f"{line} ..."))[LOGITS]
        gap = distance(np.asarray(logits(images)), exact[LOGITS])
        rows.append(Row(batch, height, width, gap, bound))
    return tuple(rows)
