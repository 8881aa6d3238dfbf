"""Preprocessing of images as a Keras layer, to stand before a compiled network."""

from __future__ import annotations

import json
from typing import Any

import keras
from keras import ops

from nfspec.arguments import flag, one_of, whole
from nfspec.backends.layers.base import Shape, serialisable
from nfspec.data.images import layout
from nfspec.data.preprocessing import input_of
from nfspec.errors import InputError
from nfspec.language.graph import Input
from nfspec.language.spec import Spec
from nfspec.plan import Plan

FORMATS = ("channels_last", "channels_first")


@serialisable
class Preprocess(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer that turns pixels of 0 to 255 into a network's input.

    It resizes, crops, and normalises with mean and standard deviation, in float32, on the device.
    It does not decode files, and does not turn images. Its bicubic filter is Keras's: its pixels
    are those of `nfspec.preprocess` or a level or two of 255 beside them, since Pillow rounds after
    each of its two passes. Without resizing, what it computes is the same but for float32 rounding.

    Args:
        plan: The network: what `nfspec.resolve` or `nfspec.load` returned.
        size: Side of the network's images, px; the size that it was tested at if None.
        resize: False for images that have their size already: they are normalised only.
        data_format: Layout of the images, before and after: `channels_last` or `channels_first`.

    The layer's input is a batch of images of one size, uint8 or float. Where the spec keeps the
    aspect ratio (`input.resize = "center"`), that size has to be known when the layer is traced.
    """

    def __init__(
        self,
        plan: Any,
        size: int | None = None,
        resize: bool = True,
        data_format: str = FORMATS[0],
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", "trainable": False} | kwargs)
        if isinstance(plan, Plan):
            self.how = input_of(plan)
        elif isinstance(plan, Spec):
            self.how = plan.input
        else:
            self.how = Input.model_validate_json(json.dumps(plan))  # as a saved model has it
        self.size = self.how.test if size is None else whole("size", size, 1, "px")
        self.resize = flag("resize", resize)
        self.data_format = one_of("data_format", data_format, FORMATS)

    def get_config(self) -> dict[str, Any]:
        own = {"plan": self.how.model_dump(mode="json"), "size": self.size, "resize": self.resize}
        return {**super().get_config(), **own, "data_format": self.data_format}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if not self.resize:
            return input_shape
        sides = (self.size, self.size)
        batch, channels = input_shape[0], self.how.channels
        last = self.data_format == FORMATS[0]
        return (batch, *sides, channels) if last else (batch, channels, *sides)

    def call(self, images: Any) -> Any:
        images = ops.cast(images, "float32")
        if self.resize:
            images = self._fitted(images)
        shape = (1, 1, 1, -1) if self.data_format == FORMATS[0] else (1, -1, 1, 1)
        mean, std = (
            ops.reshape(ops.convert_to_tensor(each, "float32"), shape)
            for each in (self.how.mean, self.how.std)
        )
        return (images / 255.0 - mean) / std

    def _fitted(self, images: Any) -> Any:
        """Images, resized and cropped; values as Pillow keeps them, whole numbers of 0 to 255."""
        last = self.data_format == FORMATS[0]
        height, width = images.shape[1:3] if last else images.shape[2:4]
        if self.how.resize == "center" and (height is None or width is None):
            raise InputError(
                "Preprocess: the height and width of the images are not known, and this network's "
                "images keep their aspect ratio; give the input a shape, or resize=False"
            )
        across, down, left, top = layout(self.how, self.size, width or 1, height or 1)
        images = ops.image.resize(
            images,
            (down, across),
            interpolation="bicubic",
            antialias=True,
            data_format=self.data_format,
        )
        images = ops.round(ops.clip(images, 0.0, 255.0))
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        return images[:, rows, columns] if last else images[:, :, rows, columns]
