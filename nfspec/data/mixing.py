"""Two images made one, and their labels with them: mixup and CutMix as the original trains.

The original decodes twice a batch and makes one image of each two, mixup in the first half of the
batch and CutMix in the second. No image is in two pairs, so an epoch of mixed images reads the
training set twice.

Sources: Zhang et al. 2018 (arXiv:1710.09412), Yun et al. 2019 (arXiv:1905.04899);
deepmind-research/nfnets/dataset.py, `my_mixup_cutmix` and `cutmix_padding`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nfspec.errors import InputError
from nfspec.language.tables import Recipe

Pixels = NDArray[np.uint8]
MixKind = Literal["mixup", "cutmix"]


def mix_kind(place: int, batch: int, recipe: Recipe) -> MixKind | None:
    """The kind of mixing, mixup or CutMix, that makes an image of a batch; None if neither does.

    Args:
        place: Place of the image in its batch, from 0.
        batch: Images in the batch, after mixing.
        recipe: Its alphas say which kinds there are. With both, the first half of the batch is
            mixup and the rest CutMix.

    Returns:
        The kind, or None if images are not mixed.

    Raises:
        InputError: No such place.
    """
    if not 0 <= place < batch:
        raise InputError(f"place: expected 0 to {batch - 1} in a batch of {batch}; found {place}")
    if recipe.mixup_alpha > 0 and (recipe.cutmix_alpha == 0 or place < batch // 2):
        return "mixup"
    return "cutmix" if recipe.cutmix_alpha > 0 else None


def _share(alpha: float, rng: Generator) -> float:
    """A draw of Beta(alpha, alpha), which is uniform for an alpha of 1."""
    if not 0 < alpha < math.inf:
        raise InputError(f"alpha: expected more than 0; found {alpha}")
    return float(rng.beta(alpha, alpha))


def _same_shape(a: Pixels, b: Pixels) -> None:
    if a.shape != b.shape:
        raise InputError(f"images of one shape are mixed; found {a.shape} and {b.shape}")


def mixup(a: Pixels, b: Pixels, alpha: float, rng: Generator) -> tuple[Pixels, float]:
    """A weighted mean of two images.

    Not rounded but cut off to integers, as in the original before RandAugment. Where the original
    mixes last, or does without RandAugment, it keeps the fraction.

    Args:
        a: (H, W, C), uint8.
        b: The same.
        alpha: The weight is drawn from Beta(alpha, alpha).
        rng: Draws.

    Returns:
        The mean, (H, W, C), uint8, and the weight of a, in image and label.

    Raises:
        InputError: Two shapes, or an alpha that is not positive.
    """
    _same_shape(a, b)
    ratio = _share(alpha, rng)
    # Not ratio a + (1 - ratio) b, which can be just below where both are the same.
    mixed = b + ratio * (a.astype(np.float64) - b)
    return mixed.astype(np.uint8), ratio


def cutmix_box(width: int, height: int, alpha: float, rng: Generator) -> tuple[int, int, int, int]:
    """Draw the rectangle of CutMix.

    Its sides are the image's times sqrt(1 - share), share from Beta(alpha, alpha), cut off to even
    numbers; its centre is any pixel, and what lies outside the image is lost. So it has 0.32 of the
    image on average and not a half: E[(p - p²/4)²] = 77/240 for a square, p = sqrt(1 - share).

    Args:
        width: Width of the image, px.
        height: Height of the image, px.
        alpha: Parameter of the Beta distribution.
        rng: Draws.

    Returns:
        Left, top, right and bottom, px, the last two excluded; empty if they are no larger.
    """
    x, y = int(rng.integers(width)), int(rng.integers(height))
    scale = math.sqrt(1.0 - _share(alpha, rng))
    across, down = int(scale * width) // 2, int(scale * height) // 2
    return max(x - across, 0), max(y - down, 0), min(x + across, width), min(y + down, height)


def cutmix(a: Pixels, b: Pixels, alpha: float, rng: Generator) -> tuple[Pixels, float]:
    """A rectangle of one image in the other.

    As in the original, the rectangle shows a, whose label so has less than b's on average.

    Args:
        a: (H, W, C), uint8.
        b: The same.
        alpha: Parameter of the Beta distribution of the rectangle's size; 1 is the original.
        rng: Draws.

    Returns:
        The image, (H, W, C), uint8, and the share of its pixels that are a's.

    Raises:
        InputError: Two shapes, or an alpha that is not positive.
    """
    _same_shape(a, b)
    height, width = a.shape[:2]
    left, top, right, bottom = cutmix_box(width, height, alpha, rng)
    mixed = b.copy()
    mixed[top:bottom, left:right] = a[top:bottom, left:right]
    return mixed, (right - left) * (bottom - top) / (width * height)
