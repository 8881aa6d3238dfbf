"""Shares of right answers of a network, and their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # 95 % of a normal distribution are within so many standard deviations


Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """Right answers among images; scores of parts of a data set add up.

    Attributes:
        images: Images looked at.
        top1: Number of images whose highest output is the label's.
        top5: Number of images whose label is among the five highest outputs, or among all if there
            are fewer classes.
        loss: Sum of the cross-entropies.
    """

    images: int = 0
    top1: int = 0
    top5: int = 0
    loss: float = 0.0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.images + other.images,
            self.top1 + other.top1,
            self.top5 + other.top5,
            self.loss + other.loss,
        )


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    """Score outputs; where several are equally high, the label's comes last.

    Args:
        logits: (images, classes).
        labels: (images,).
    """
    exact = logits.astype(np.float64)
    own = np.take_along_axis(exact, labels[:, None], 1)
    above = (exact >= own).sum(1) - 1  # outputs that are as high, but for the label's own
    highest = exact.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of what is not finite, the loss is not either
        losses = np.log(np.exp(exact - highest).sum(1)) + (highest - own)[:, 0]
    right = np.isfinite(exact).all(1)  # what is not a number is no answer
    return Score(
        len(labels),
        int(((above == 0) & right).sum()),
        int(((above < 5) & right).sum()),
        float(losses.sum()),
    )


def outputs(
    function: Logits, images: Iterable[tuple[NDArray[np.float32], Numbers]], batch: int
) -> Iterator[tuple[NDArray[np.float32], Numbers]]:
    """The outputs of a network for batches of images, with the numbers of the images.

    Args:
        function: A function of (batch, H, W, C) that returns (batch, outputs).
        images: Images and their numbers. Where there are fewer than `batch` of them, black images
            are put in and their outputs left out, so that a framework compiles once.
        batch: Images at a time.
    """
    for given, numbers in images:
        rest = np.zeros((batch - len(given), *given.shape[1:]), np.float32)
        found = function(np.concatenate([given, rest]) if len(rest) else given)
        yield found[: len(numbers)], numbers


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The softmax of outputs, in float64; what is not a number where an output is not finite.

    Args:
        logits: (images, classes).
    """
    exact = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(exact - exact.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))


def shares(top1: int, top5: int, images: int, classes: int) -> list[str]:
    """Lines with the shares of right answers, and their 95 % confidence intervals.

    The five highest outputs are all of them where there are up to five classes, so that their line
    is left out.
    """
    lines = []
    for name, right in (("top-1", top1), ("top-5", top5))[: 2 if classes > 5 else 1]:
        low, high = interval(right, images)
        lines.append(
            f"{name}  {right / images:7.2%}  (95 % interval {low:.2%} to {high:.2%}, "
            f"{right:,} of {images:,})"
        )
    return lines


def interval(right: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share of one image or more (Wilson 1927)."""
    share = right / images
    spread = Z * math.sqrt(share * (1 - share) / images + (Z / (2 * images)) ** 2)
    middle, scale = share + Z * Z / (2 * images), 1 + Z * Z / images
    # Rounded, the ends would miss 0 and 1 by a little.
    low = 0.0 if right == 0 else (middle - spread) / scale
    return low, 1.0 if right == images else (middle + spread) / scale
