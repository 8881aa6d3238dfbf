"""An image file as a network's input."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import math
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging

from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.language.graph import Input
from nfspec.wording import printable

# What Pillow raises, by format, for a file that is none or is damaged.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    Image.DecompressionBombError,
)
# Formats that Pillow reads by itself: for EPS it runs Ghostscript, whatever a file is called.
Image.init()  # or formats of plugins that were not needed yet are missing
FORMATS = tuple(
    kind
    for kind in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
    if kind in Image.OPEN
)
# What undoes each EXIF orientation (Exif 2.32, tag 274); 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_RATIO = 100  # longer side of an image to the shorter one
MAX_PIXELS = 2**26  # of an image that may be scaled as a whole; they take 256 MiB


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


MORE_BITS = (
    "more than 8 bits a channel, of which only 8 would be kept; convert it to 8 bits first, with "
    "the scale that you want"
)


@cache
def _quiet() -> None:
    """Keep Pillow and its libtiff from printing messages; errors are raised all the same. Pillow
    warns of images of 90 megapixels on, and refuses those of twice as many.

    Pillow 13.0 leaves libtiff's handlers as they are, which print to file descriptor 2; such lines
    are the subject of https://github.com/python-pillow/Pillow/issues/3487.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with contextlib.suppress(OSError, AttributeError):  # a build that hides libtiff's names
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


@contextlib.contextmanager
def opened_image(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS`, a file or its bytes, without decoding it.

    Raises:
        OSError, ValueError: It is no regular file, no image of these formats, or too thin.
    """
    _quiet()
    with (
        io.BytesIO(source) if isinstance(source, bytes) else opened(source) as file,
        Image.open(file, formats=FORMATS) as image,
    ):
        require_ratio(image)
        yield image


def require_ratio(image: Image.Image) -> None:
    """Refuse an image that is too thin to be scaled.

    Raises:
        ValueError: It is.
    """
    shorter, longer = sorted(image.size)
    if longer > MAX_RATIO * shorter:
        raise ValueError(
            f"{image.width} x {image.height} px: one side is over {MAX_RATIO} times the other"
        )


def cause(error: BaseException) -> str:
    """The reason why an image cannot be read, one of `UNREADABLE`, in a few words."""
    if isinstance(error, UnidentifiedImageError):  # names an object of Python's
        return f"none of {', '.join(FORMATS)}"
    if isinstance(error, MemoryError):
        return "it needs more memory than is free"
    text = (error.strerror if isinstance(error, OSError) else None) or " ".join(
        map(str, error.args)
    )
    return printable(" ".join(text.split())) or f"damaged: {type(error).__name__}"


def require_channels(how: Input) -> None:
    """Refuse a network whose input cannot be an image file.

    Raises:
        InputError: Its input has other than 1 or 3 channels.
    """
    if how.channels not in (1, 3):
        raise InputError(f"image files have 1 or 3 channels, the network takes {how.channels}")


def prepare(path: str | Path, how: Input, size: int) -> NDArray[np.float32]:
    """Read, resize and normalise an image file as a spec's `[input]` says.

    Args:
        path: An image of one of `FORMATS`.
        how: `spec.input`.
        size: Side of the result, px.

    Returns:
        (1, size, size, channels), float32, NHWC.

    Raises:
        InputError: Not a readable image, or a number of channels that an image does not have.
    """
    require_channels(how)
    try:
        with opened_image(path) as decoded:
            image = with_channels(decoded, how.channels)
    except UNREADABLE as error:
        raise InputError(f"{path}: not an image that can be read ({cause(error)})") from None
    return normalise(fit(image, how, size), how)[None]


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """An image of any mode as RGB or, with one channel, grey, turned as its EXIF data say.

    Raises:
        ValueError: Its numbers do not fit into 8 bits a channel; those of 16 bits do where they
            are numbers of 8 bits in the upper byte, or in both.
    """
    deep = _deep(image)
    image = _upright(image)
    if image.mode.startswith("I"):  # Pillow's own conversion cuts off at 255
        levels = np.asarray(image).astype(np.int64)
        upper = levels >> 8
        if not (np.array_equal(levels, upper * 257) or np.array_equal(levels, upper * 256)):
            raise ValueError(MORE_BITS)
        image = Image.fromarray(upper.astype(np.uint8))
    elif image.mode == "F" or deep:
        raise ValueError(MORE_BITS)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # which Pillow asks for, in a warning
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _deep(image: Image.Image) -> bool:
    """True if Pillow decodes more than 8 bits a channel, by its decoder's arguments."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    if image.format == "PPM":  # the mode, and the largest number where that is not 255
        return any(isinstance(how, tuple) and int(how[1]) > 255 for how in arguments)
    return any(";16" in str(how) for how in arguments)


def _upright(image: Image.Image) -> Image.Image:
    """An image as a camera says that it is to be seen: by its EXIF orientation, if it has one."""
    image.load()  # first: TIFF images are turned as they are read
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises whatever damaged EXIF data lead to; the pixels are good
        turn = None
    return image if turn is None else image.transpose(turn)


def layout(how: Input, size: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The width and height that an image is resized to, and the left and top edge of its crop.

    These are the formulas of timm 1.0.31 (`transforms_imagenet_eval`) and of torchvision, to the
    pixel.

    Args:
        how: `spec.input`.
        size: Side of the crop, px.
        width, height: Those of the image, px.
    """
    side = math.floor(size / how.crop) + how.margin
    across = down = side
    if how.resize == "center":
        shorter = min(width, height)
        across, down = (side if n == shorter else int(side * n / shorter) for n in (width, height))
    return across, down, round((across - size) / 2), round((down - size) / 2)


def fit(image: Image.Image, how: Input, size: int) -> Image.Image:
    """Resize an image and cut out its centre, as a spec's `[input]` says for evaluation.

    Resizing is Pillow's bicubic filter, which is antialiased, as it is in timm.

    Args:
        image: An image of any size.
        how: `spec.input`.
        size: Side of the result, px.
    """
    width, height, left, top = layout(how, size, image.width, image.height)
    if width * height > MAX_PIXELS:
        # Scale the centre alone. Pillow may then do its two passes in another order, which rounds
        # differently; so images of usual sizes do not take this way, and keep their bytes.
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return image.resize((size, size), Image.Resampling.BICUBIC, box)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def normalise(image: Image.Image | NDArray[np.uint8], how: Input) -> NDArray[np.float32]:
    """Pixels of 0 to 255 as a network's input: (height, width, channels), float32.

    Computed in float64 and rounded once, for each value of each channel alone.
    """
    pixels = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], how.channels)
    made = np.empty(pixels.shape, np.float32)
    for channel, levels in enumerate(_levels(tuple(how.mean), tuple(how.std))):
        made[..., channel] = levels.take(pixels[..., channel])
    return made


@lru_cache(maxsize=16)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """The number that each value of 0 to 255 becomes in each channel: (channels, 256)."""
    values = np.arange(256)[:, None] / 255.0
    return np.ascontiguousarray(((values - mean) / std).T, np.float32)
