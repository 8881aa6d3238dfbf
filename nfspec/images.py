"""An image file as a network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.errors import InputError
from nfspec.spec import Input

# What Pillow raises, by format, for a file that is none or is damaged.
UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)


def sample_photo() -> Path:
    """The photograph that comes with matplotlib (Grace Hopper, public domain).

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib import cbook
    except ModuleNotFoundError:
        message = "no image given, and matplotlib, whose sample photo stands in, is not installed; "
        raise InputError(message + "use --image FILE, or run: pip install matplotlib") from None
    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def prepare(path: str | Path, how: Input, size: int) -> NDArray[np.float32]:
    """Read, resize and normalise an image as a spec's `[input]` says.

    Resizing is bicubic with antialiasing, as timm's; the original's evaluation is without.

    Args:
        path: Any format that Pillow reads.
        how: `spec.input`.
        size: Side of the result, px.

    Returns:
        (1, size, size, channels), float32, NHWC.

    Raises:
        InputError: Not a readable image, or a number of channels that an image does not have.
    """

    if how.channels not in (1, 3):
        raise InputError(f"images have 1 or 3 channels, this network's have {how.channels}")
    try:
        with Image.open(path) as opened:
            image = with_channels(opened, how.channels)
    except UNREADABLE as error:
        raise InputError(f"{path}: not an image that can be read ({error})") from None
    return normalise(fit(image, how, size), how)[None]


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """An image of any mode as RGB or, with one channel, grey; of 16 bits the upper 8."""
    if image.mode.startswith("I"):  # Pillow's own conversion cuts off at 255
        levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        image = Image.fromarray((levels >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # which Pillow asks for, in a warning
    return image.convert("RGB" if channels == 3 else "L")


def fit(image: Image.Image, how: Input, size: int) -> Image.Image:
    """Resize an image and cut out its centre, as a spec's `[input]` says for evaluation.

    Args:
        image: Of any size.
        how: `spec.input`.
        size: Side of the result, px.
    """

    side = round(size / how.crop) + how.margin
    if how.resize == "squash":
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    else:
        scale = side / min(image.size)
        width, height = (max(side, round(n * scale)) for n in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def normalise(image: Image.Image | NDArray[np.uint8], how: Input) -> NDArray[np.float32]:
    """Pixels of 0 to 255 as a network's input: (height, width, channels), float32."""
    pixels = np.asarray(image, np.float64) / 255.0
    pixels = pixels.reshape(*pixels.shape[:2], how.channels)
    return np.asarray((pixels - np.asarray(how.mean)) / np.asarray(how.std), np.float32)
