"""Images of any kind as a network's input: the one way, for training, evaluation and prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfspec.arguments import flag, one_of, refuse, whole
from nfspec.data import original
from nfspec.data.images import (
    UNREADABLE,
    cause,
    fit,
    normalise,
    opened_image,
    require_channels,
    require_ratio,
    with_channels,
)
from nfspec.errors import InputError
from nfspec.language.graph import Input
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.wording import printable

LAYOUTS = ("nhwc", "nchw")


@dataclass(frozen=True)
class Preprocessing:
    """A function of images, which returns a network's input; `nfspec.preprocess` makes it.

    Attributes:
        how: The spec's `[input]`: resize rule, crop, mean and standard deviation.
        size: Side of the network's images, px.
        layout: `nhwc` or `nchw`.
        original: Resize and crop by DeepMind's formulas, instead of Pillow's filter.
    """

    how: Input
    size: int
    layout: str = LAYOUTS[0]
    original: bool = False

    def __call__(self, images: Any) -> NDArray[np.float32]:
        """Images as the network takes them.

        Args:
            images: One image or a sequence of them. Each is a path, the bytes of a file, a PIL
                image, or a uint8 array of 0 to 255: (H, W), or (H, W, C) with 1, 3 or 4 channels.
                An array (N, H, W, C) is a sequence. Images may differ in size.

        Returns:
            (N, size, size, channels), or with channels first, float32.

        Raises:
            InputError: An image cannot be read, or is none of these; or there is none.
        """
        given = listed(images)
        if not given:
            raise InputError("preprocess: no images given; expected one or more")
        made = np.stack([self.of(self._read(each, n)) for n, each in enumerate(given)])
        return made if self.layout == "nhwc" else np.ascontiguousarray(made.transpose(0, 3, 1, 2))

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """An image, RGB or grey as the network's channels say: (size, size, channels)."""
        if self.original:
            return original.prepared(image, self.how, self.size)
        return normalise(fit(image, self.how, self.size), self.how)

    def _read(self, image: Any, number: int) -> Image.Image:
        name = str(image) if isinstance(image, str | Path) else f"image {number}"
        try:
            with opened(image) as found:
                return with_channels(found, self.how.channels)
        except UNREADABLE as error:
            raise InputError(f"{printable(name)}: cannot be read ({cause(error)})") from None


def preprocess(
    plan: Plan | Spec, size: int | None = None, layout: str = LAYOUTS[0], *, original: bool = False
) -> Preprocessing:
    """The function that turns images into a network's input, as the network was evaluated.

    `nfspec train`, `evaluate`, `predict` and `embed` use the same function, on every framework.
    For a spec with timm's rules its resized pixels are those of timm's transform, to the bit; what
    is normalised differs by float32 rounding alone, since it is computed in float64. Unlike timm,
    it turns a photograph as its EXIF data say. Read `docs/photos.md` for figures.

    Args:
        plan: The network: what `nfspec.resolve` or `nfspec.load` returned.
        size: Side of the images, px; the size that the network was tested at if None.
        layout: `nhwc` or `nchw`.
        original: Compute as DeepMind's code does, to the bit: TensorFlow's bicubic filter, which
            is not antialiased, and its float32 arithmetic. Use it to repeat published figures on
            ImageNet. Photographs of several megapixels are better resized without it.

    Returns:
        A function of one image, or of a sequence of images of any sizes.

    Raises:
        InputError: An argument has a wrong type or value, or the network's input is no image.
    """
    if not isinstance(plan, Plan | Spec):
        raise refuse("plan", "what nfspec.resolve or nfspec.load returns", plan)
    how = plan.input if isinstance(plan, Spec) else input_of(plan)
    require_channels(how)
    side = how.test if size is None else whole("size", size, 1, "px")
    one_of("layout", layout, LAYOUTS)
    return Preprocessing(how, side, layout, flag("original", original))


def input_of(plan: Plan) -> Input:
    """The `[input]` of the spec that a plan was resolved from."""
    return Input.model_validate_json(json.dumps(json.loads(plan.canonical)["input"]))


def listed(images: Any) -> list[Any]:
    """One image as a list of it; a sequence, or an array of images, as a list."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    several = isinstance(images, Sequence) and not isinstance(images, str | bytes)
    return list(images) if several else [images]


def opened(image: Any) -> AbstractContextManager[Image.Image]:
    """Open an image of any kind, a file without decoding it.

    Args:
        image: A path, the bytes of a file, a PIL image, or an array of pixels.

    Raises:
        InputError: It is none of these.
        OSError, ValueError: It cannot be used.
    """
    if isinstance(image, str | Path | bytes):
        return opened_image(image)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise refuse("image", "a path, bytes, a PIL image or an array", image)
    require_ratio(image)
    return nullcontext(image)


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    """An array of pixels as an image.

    Raises:
        InputError: It is none.
    """
    if pixels.dtype != np.uint8:
        raise InputError(
            f"image: expected an array of uint8, of 0 to 255; found {pixels.dtype}. Convert it "
            "with the scale that it has"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise InputError(
            "image: expected an array (height, width) or (height, width, channels) with 1, 3 or "
            f"4 channels; found the shape {pixels.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
