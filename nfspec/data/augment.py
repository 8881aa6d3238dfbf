"""Random crops, flips and RandAugment as the original trains with them, in Pillow and NumPy.

Images are Pillow's, "RGB" or "L", 8 bits a channel in and out. All that is random is drawn from the
generator that is given: the same generator makes the same image, whatever trains on it.

Sources: Cubuk et al. 2019 (arXiv:1909.13719) for RandAugment; deepmind-research/nfnets/{dataset,
autoaugment}.py for what is done, with TensorFlow's kernels and TensorFlow Addons' transforms, which
it calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nfspec.errors import InputError

AREA = (0.08, 1.0)  # area of a crop, as a share of its image
ASPECT = (3 / 4, 4 / 3)  # width over height of a crop
COVERED = 0.1  # least share of the object to be seen, which is the image: stricter than AREA
ATTEMPTS = 10
MARGIN = 32  # px around the centre crop that is taken after that
TOP = 10.0  # the nominal top of the scale of magnitudes
FILL = 128  # value of pixels that nothing moves to, and of those that are cut out
LUMA = (0.2989, 0.5870, 0.1140)


def _checked(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGB", "L"):
        raise InputError(f"an image's mode must be RGB or L; found {image.mode}")
    return image


def crop_box(
    width: int, height: int, area: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int] | None:
    """Draw a crop as TensorFlow's `sample_distorted_bounding_box` does for the original.

    The aspect ratio is uniform, and then the height is among those that fit and keep the area in
    its range; so the area is not uniform. The last row and column are in no smaller crop, as the
    kernel's corner is below its largest value.

    Args:
        width: Width of the image, px.
        height: Height of the image, px.
        area: Least and largest share of the image; less than `COVERED` is never accepted.
        rng: Draws.

    Returns:
        Left, top, width and height of the crop, px; None if no attempt fits.
    """
    least, most = (share * width * height for share in area)
    for _ in range(ATTEMPTS):
        aspect = rng.uniform(*ASPECT)
        low, high = (round(math.sqrt(pixels / aspect)) for pixels in (least, most))
        high = min(high, height, math.floor((width + 0.5) / aspect))
        if round(high * aspect) > width:  # a tie, rounded up
            high -= 1
        tall = int(rng.integers(low, high, endpoint=True)) if low < high else high
        # Sides are whole, and the area may be just outside its range.
        tall += round(tall * aspect) * tall < least
        tall -= round(tall * aspect) * tall > most
        wide = round(tall * aspect)
        fits = 1 <= wide <= width and 1 <= tall <= height
        if not (fits and max(least, COVERED * width * height) <= wide * tall <= most):
            continue
        top = int(rng.integers(height - tall)) if tall < height else 0
        left = int(rng.integers(width - wide)) if wide < width else 0
        return left, top, wide, tall
    return None


def _center_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """The square around which `MARGIN` px stay when `size` px are made of it."""
    side = max(1, min(width, height) * size // (size + MARGIN))
    return (width - side + 1) // 2, (height - side + 1) // 2, side, side


def random_crop_flip(
    image: Image.Image,
    size: int,
    rng: Generator,
    *,
    area: tuple[float, float] = AREA,
    flip: bool = True,
) -> Image.Image:
    """A random part of an image, resized to a square, and its mirror image half of the time.

    Where no crop is found, or where it is the whole image, the original takes the centre, without
    the margin that would be 32 px of the result; so it does always if the area is (1, 1).

    Resizing is bicubic with antialiasing and rounds, as in `images.prepare`; the original's
    is without, and what lies beyond 0 and 255 is cut off only by RandAugment.

    Args:
        image: "RGB" or "L", of any size.
        size: Side of the result, px.
        rng: Draws.
        area: Least and largest share of the image's area, the largest at most 1; crops of less than
            a tenth are never taken.
        flip: True to mirror half of the images; False for classes that have a left and a right,
            such as digits.

    Returns:
        (size, size), of the same mode.

    Raises:
        InputError: Another mode, a size below 1, or shares that are no range.
    """
    _checked(image)
    if size < 1:
        raise InputError(f"size: expected 1 or more; found {size}")
    if not 0 < area[0] <= area[1] <= 1:
        raise InputError(f"area: expected 0 < least <= largest <= 1; found {area}")
    box = crop_box(*image.size, area, rng)
    if box is None or box[2:] == image.size:
        box = _center_box(*image.size, size)
    left, top, width, height = box
    part = image.crop((left, top, left + width, top + height))
    part = part.resize((size, size), Image.Resampling.BICUBIC)
    if flip and rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return part


# The operations. Each takes an image, its argument, and a generator that only cutout draws from.


def _looked_up(image: Image.Image, table: NDArray[np.uint8]) -> Image.Image:
    """Every value v of every channel becomes `table[v]`."""
    return image.point(table.tolist() * len(image.getbands()))


def _values() -> NDArray[np.uint8]:
    return np.arange(256, dtype=np.uint8)


def _blended(
    plain: NDArray[np.uint8] | np.uint8, full: NDArray[np.uint8], factor: float
) -> NDArray[np.uint8]:
    """From `plain` at 0 over `full` at 1 and beyond: in float32, clipped and cut off."""
    base = np.asarray(plain, np.float32)
    blend = base + np.float32(factor) * (full.astype(np.float32) - base)
    return np.clip(blend, 0.0, 255.0).astype(np.uint8)


def _moved(
    image: Image.Image, across: tuple[float, float, float], down: tuple[float, float, float]
) -> Image.Image:
    """Pixel (x, y) becomes the one nearest to (across · (x, y, 1), down · (x, y, 1)), or grey.

    Where a point is midway between pixels, the original takes the one further from (0, 0), but for
    float32's rounding; Pillow, which adds up steps of 1/65536 px, either. Shears by a round number
    have whole rows of such points.
    """
    # Pillow's origin is the corner of a pixel, the original's its centre.
    matrix = [*across, *down]
    for row in (0, 3):
        matrix[row + 2] += (1.0 - matrix[row] - matrix[row + 1]) / 2
    fill = FILL if image.mode == "L" else (FILL,) * 3
    how, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return image.transform(image.size, how, matrix, nearest, fillcolor=fill)


def autocontrast(image: Image.Image, argument: float, rng: Generator) -> Image.Image:
    """Each channel stretched to 0 and 255, unless it is constant.

    In float64 and cut off; the original's float32 can be 1 off.
    """
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, argument: float, rng: Generator) -> Image.Image:
    """Each channel's histogram made flat, unless fewer than 255 pixels are below its maximum."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, argument: float, rng: Generator) -> Image.Image:
    """255 less each value."""
    return ImageOps.invert(image)


def rotate(image: Image.Image, degrees: float, rng: Generator) -> Image.Image:
    """About the centre, counterclockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    return _moved(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def posterize(image: Image.Image, bits: float, rng: Generator) -> Image.Image:
    """Only the highest bits stay, at least one: TensorFlow shifts 8 bits by 7 at most."""
    shift = np.uint8(8 - min(max(int(bits), 1), 8))
    return _looked_up(image, (_values() >> shift) << shift)


def solarize(image: Image.Image, threshold: float, rng: Generator) -> Image.Image:
    """255 less the value where it is not below a threshold, which has 8 bits too.

    At magnitude 10 the threshold is to be 256, and nothing to change; the original compares in
    uint8, where that is 0, and everything is inverted. At 15 it is 384 and so 128.
    """
    values = _values()
    return _looked_up(image, np.where(values < int(threshold) % 256, values, 255 - values))


def solarize_add(image: Image.Image, addition: float, rng: Generator) -> Image.Image:
    """More where the value is below 128."""
    values = _values()
    more = np.clip(values.astype(np.int64) + int(addition), 0, 255).astype(np.uint8)
    return _looked_up(image, np.where(values < 128, more, values))


def color(image: Image.Image, factor: float, rng: Generator) -> Image.Image:
    """From grey at 0 over the image at 1; "L" stays as it is, being its own grey."""
    if image.mode == "L":
        return image
    pixels = np.asarray(image)
    luma = pixels.astype(np.float32) / np.float32(255.0) @ np.asarray(LUMA, np.float32)
    grey = (luma * np.float32(255.5)).astype(np.uint8)  # TensorFlow's conversion to integers
    return Image.fromarray(_blended(grey[..., None], pixels, factor))


def contrast(image: Image.Image, factor: float, rng: Generator) -> Image.Image:
    """From a plain grey at 0 over the image at 1.

    The grey is not the image's mean as in Pillow. The original divides the sum of the histogram by
    its 256 bins, which makes it the number of pixels over 256: 144 at 192 px, white from 256 px.
    """
    grey = np.uint8(min(image.width * image.height // 256, 255))
    return _looked_up(image, _blended(grey, _values(), factor))


def brightness(image: Image.Image, factor: float, rng: Generator) -> Image.Image:
    """From black at 0 over the image at 1."""
    return _looked_up(image, _blended(np.uint8(0), _values(), factor))


def sharpness(image: Image.Image, factor: float, rng: Generator) -> Image.Image:
    """From a mean over 3 x 3 pixels, the middle one 5 times, at 0 over the image at 1.

    The border stays. The mean is of integers, cut off; the original's, in float32, can be 1 less.
    """
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    total = 4 * pixels[1:-1, 1:-1].astype(np.int32)
    for y in range(3):
        for x in range(3):
            total += pixels[y : y + height - 2, x : x + width - 2]
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = total // 13
    return Image.fromarray(_blended(smooth, pixels, factor))


def shear_x(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    """Rows move left by level times their number; the first stays."""
    return _moved(image, (1.0, level, 0.0), (0.0, 1.0, 0.0))


def shear_y(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    """Columns move up by level times their number; the first stays."""
    return _moved(image, (1.0, 0.0, 0.0), (level, 1.0, 0.0))


def translate_x(image: Image.Image, pixels: float, rng: Generator) -> Image.Image:
    """To the left."""
    return _moved(image, (1.0, 0.0, pixels), (0.0, 1.0, 0.0))


def translate_y(image: Image.Image, pixels: float, rng: Generator) -> Image.Image:
    """Up."""
    return _moved(image, (1.0, 0.0, 0.0), (0.0, 1.0, pixels))


def cutout(image: Image.Image, half: float, rng: Generator) -> Image.Image:
    """A grey square, 2 · half px wide around a pixel of the image, which may cut it off."""
    y, x = int(rng.integers(image.height)), int(rng.integers(image.width))
    pixels, half = np.array(image), int(half)
    pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = FILL
    return Image.fromarray(pixels)


class Operation(NamedTuple):
    """One operation and how strong it is.

    Attributes:
        apply: Image, argument and generator to image.
        slope: Number that magnitude 10 adds to the argument.
        base: The argument at magnitude 0.
        signed: True if the argument is negative half of the time.
    """

    apply: Callable[[Image.Image, float, Generator], Image.Image]
    slope: float = 0.0
    base: float = 0.0
    signed: bool = False


# In the original's order. Arguments are degrees, bits, values of 0 to 255, factors, px/px and px.
OPERATIONS = {
    "AutoContrast": Operation(autocontrast),
    "Equalize": Operation(equalize),
    "Invert": Operation(invert),
    "Rotate": Operation(rotate, 30.0, signed=True),
    "Posterize": Operation(posterize, 4.0),
    "Solarize": Operation(solarize, 256.0),
    "Color": Operation(color, 1.8, 0.1),
    "Contrast": Operation(contrast, 1.8, 0.1),
    "Brightness": Operation(brightness, 1.8, 0.1),
    "Sharpness": Operation(sharpness, 1.8, 0.1),
    "ShearX": Operation(shear_x, 0.3, signed=True),
    "ShearY": Operation(shear_y, 0.3, signed=True),
    "TranslateX": Operation(translate_x, 100.0, signed=True),
    "TranslateY": Operation(translate_y, 100.0, signed=True),
    "Cutout": Operation(cutout, 40.0),
    "SolarizeAdd": Operation(solarize_add, 110.0),
}


def apply(image: Image.Image, name: str, magnitude: float, rng: Generator) -> Image.Image:
    """One of `OPERATIONS` at a magnitude.

    Raises:
        InputError: A mode other than "RGB" and "L", or a magnitude that is no number from 0 on.
    """
    _checked(image)
    if not 0 <= magnitude < math.inf:
        raise InputError(f"magnitude: expected 0 or more; found {magnitude}")
    operation = OPERATIONS[name]
    argument = magnitude / TOP * operation.slope + operation.base
    if operation.signed and rng.random() < 0.5:
        argument = -argument
    return operation.apply(image, argument, rng)


def rand_augment(image: Image.Image, layers: int, magnitude: float, rng: Generator) -> Image.Image:
    """A number of operations one after another, each any of the 16, and always done.

    Magnitude 0 changes nothing where it is a distance, but factors are 0.1 there, Posterize keeps a
    bit and Solarize inverts. At 5, which F0 trains with, Color, Contrast, Brightness and Sharpness
    change nothing. Translations and squares are in px whatever the size: at 5 they move by 50 px
    and are 40 px wide, so images of 32 px need less.

    An "L" image becomes what the same image in "RGB" becomes.

    Args:
        image: "RGB" or "L", at the size to train with.
        layers: Number of operations; 0 leaves the image as it is.
        magnitude: Strength of the operations; 10 is the nominal top, F3 to F7 train with 15.
        rng: Draws.

    Returns:
        An image of the same size and mode.

    Raises:
        InputError: Another mode, negative layers, or a magnitude that is no number from 0 on.
    """
    if layers < 0:
        raise InputError(f"layers: expected 0 or more; found {layers}")
    names = list(OPERATIONS)
    for _ in range(layers):
        image = apply(image, names[int(rng.integers(len(names)))], magnitude, rng)
    return image
