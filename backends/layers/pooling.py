"""Pooling with the padding rules of a spec."""

from __future__ import annotations

from typing import Any

from keras import ops

from nfspec.backends.layers.base import (
    NFLayer,
    Shape,
    output_image,
    serialisable,
    spatial_axes,
    spatial_padding,
)
from nfspec.plan import Padding


@serialisable
class SpatialPool(NFLayer):
    """Average or maximum over windows; padding is neither counted nor seen.

    Args:
        kind: `avg` or `max`.
        window: Side, px.
        strides: px.
        padding: `same`, `symmetric` or `valid`.
        data_format: `channels_last` or `channels_first`.
    """

    def __init__(
        self,
        kind: str,
        window: int,
        *,
        strides: int,
        padding: Padding = "same",
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.window = window
        self.strides = strides
        self.padding = padding
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        if self.kind == "avg":
            # On PyTorch, Keras 3.15 repeats the edge instead of not counting it, which is the same
            # for windows of 2, the only ones a spec has: https://github.com/keras-team/keras/pull/23233
            return ops.average_pool(x, self.window, self.strides, self.padding, self.data_format)
        x, padding = spatial_padding(
            x, self.window, self.strides, self.padding, self.data_format, float("-inf")
        )
        return ops.max_pool(x, self.window, self.strides, padding, self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return output_image(
            input_shape, None, self.window, self.strides, self.padding, self.data_format
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "window": self.window,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
        }


@serialisable
class SpatialMean(NFLayer):
    """Mean over height and width: images to (N, C)."""

    def __init__(self, *, data_format: str = "channels_last", **kwargs: Any):
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        return ops.mean(x, axis=spatial_axes(self.data_format))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        gone = spatial_axes(self.data_format)
        return tuple(side for axis, side in enumerate(input_shape) if axis not in gone)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}
