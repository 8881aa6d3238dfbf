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
    It does not decode files, and does not turn images. Its bicubic filter is Keras's, in two
    passes, across and then down, as Pillow's is: nearly all values are those of
    `nfspec.preprocess`, and the others a level of 255 beside them. For some sizes Pillow 13 goes
    down first, which changes a tenth of the values by a level or two, and more at a hard edge.
    Without resizing, what it computes is the same but for float32 rounding.

    Args:
        plan: The network: what `nfspec.resolve` or `nfspec.load` returned.
        size: Side of the network's images, px; the size that it was tested at if None.
        resize: False for images that have their size already: they are normalised only.
        data_format: Layout of the images, before and after: `channels_last` or `channels_first`.

    The layer's input is a batch of images of one size, uint8 or float, which has to be known when
    the layer is traced, unless it does not resize.
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
        if height is None or width is None:
            raise InputError(
                "Preprocess: the height and width of the images are not known where it is traced; "
                "give its input a shape, or resize the images and use resize=False"
            )
        across, down, left, top = layout(self.how, self.size, width, height)
        # As Pillow does it: first across, then down.
        images = self._resized(images, (height, across))
        images = self._resized(images, (down, across))
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        return images[:, rows, columns] if last else images[:, :, rows, columns]

    def _resized(self, images: Any, sides: tuple[int, int]) -> Any:
        """Images, of other sides; values rounded and cut off to whole numbers of 0 to 255."""
        made = ops.image.resize(
            images,
            sides,
            interpolation="bicubic",
            antialias=True,
            data_format=self.data_format,
        )
        return ops.floor(ops.clip(made, 0.0, 255.0) + 0.5)  # as Pillow rounds
