"""The time in which a core makes an image for training: it reads a JPEG of 500 x 375 px, ImageNet's
mean size, crops, resizes, mixes and augments it.

The times are of one core of an AMD EPYC at 2.6 GHz with Pillow 13.0, November 2026: a fit to twenty
measurements with the files of `benchmarks/decoding.py`, of images of 128 to 448 px that are made of
one file or of two, with and without RandAugment. It meets each of them within 23 %.
"""

from __future__ import annotations

from nfspec.language.tables import Recipe

MEASURED_ON = "JPEGs of 500 x 375 px, Pillow 13.0, a core of an AMD EPYC at 2.6 GHz"
READ = 1.26e-3  # s, to read and to decode a file
RESIZE = 7.6e-9  # s for each pixel that is made of it
LAYER = 4.0e-9  # s for each pixel and operation of RandAugment
REST = 3.0e-9  # s for each pixel: it is mixed and normalised


def decoding_seconds(recipe: Recipe | None, side: int) -> float:
    """Seconds of a core for an image of a training.

    Args:
        recipe: Says how many files an image is made of, and what is done to it; None: one, of which
            a part is taken.
        side: Side of the image, px.
    """
    mixed = recipe is not None and (recipe.mixup_alpha > 0 or recipe.cutmix_alpha > 0)
    layers = recipe.randaugment_layers if recipe is not None else 0
    pixels, files = side * side, 2 if mixed else 1
    return files * (READ + RESIZE * pixels) + (LAYER * layers + REST) * pixels
