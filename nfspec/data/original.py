"""Images as the evaluation of DeepMind's code prepares them, in NumPy, to the bit.

Its bicubic filter is TensorFlow's: four pixels in each direction whatever the scale, so that a
large image is sampled and not averaged, and values beyond 0 to 255 are kept.

Source: deepmind-research, nfnets/dataset.py (`_preprocess_image`, `_normalize_image`); TensorFlow
2.21, core/kernels/image/resize_bicubic_op.cc.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.language.graph import Input

Array = NDArray[np.float32]

STEPS = 1024  # places between two pixels for which TensorFlow has weights


def _table() -> tuple[Array, Array]:
    """Keys' cubic kernel with a = -0.5 at distances of 0 to 1, and of 1 to 2 pixels."""
    near = np.arange(STEPS + 1) / STEPS
    far, a = near + 1.0, -0.5
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return inner.astype(np.float32), outer.astype(np.float32)


def _taps(pixels: int, size: int) -> tuple[NDArray[np.int64], Array]:
    """The four pixels that each output reads along an axis, and their weights: (4, size) both."""
    inner, outer = _table()
    scale = np.float32(pixels) / np.float32(size)
    places = (np.arange(size).astype(np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(places)
    step = np.rint((places - first) * np.float32(STEPS)).astype(np.int64)
    weights = np.stack([outer[step], inner[step], inner[STEPS - step], outer[STEPS - step]])
    wanted = first.astype(np.int64) + np.arange(-1, 3)[:, None]
    read = np.clip(wanted, 0, pixels - 1)
    weights[read != wanted] = 0.0  # beyond the edge, and the rest is scaled to a sum of 1
    return read, weights * (np.float32(1.0) / _sum(weights))


def _sum(parts: Array) -> Array:
    """The sum of four arrays, in TensorFlow's order."""
    return ((parts[0] + parts[1]) + parts[2]) + parts[3]


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> Array:
    """`tf.image.resize` of TensorFlow 2 with its bicubic method: (height, width, channels)."""
    image = pixels.astype(np.float32)
    rows, weights = _taps(image.shape[0], height)
    image = _sum(image[rows] * weights[:, :, None, None])
    columns, weights = _taps(image.shape[1], width)
    return _sum(np.moveaxis(image[:, columns], 1, 0) * weights[:, None, :, None])


def prepared(image: Image.Image, how: Input, size: int) -> Array:
    """An image as the original's evaluation gives it to a network: (size, size, channels).

    Args:
        image: RGB or, of one channel, grey.
        how: `spec.input`. Squash: resize all, then crop (`resize_crop_32`); center: crop, then
            resize (`crop_resize`).
        size: Side of the result, px.
    """
    pixels = np.asarray(image).reshape(image.height, image.width, how.channels)
    side = math.floor(size / how.crop) + how.margin
    if how.resize == "squash":
        edge = (side - size + 1) // 2
        found = resized(pixels, side, side)[edge : edge + size, edge : edge + size]
    else:
        scale = min(np.float32(n) / np.float32(side) for n in image.size)
        kept = max(1, int(scale * np.float32(size)))
        left, top = ((n - kept + 1) // 2 for n in image.size)
        found = resized(pixels[top : top + kept, left : left + kept], size, size)
    mean, std = (np.asarray(np.multiply(each, 255), np.float32) for each in (how.mean, how.std))
    return (found - mean) / std
