"""Pooling with the padding rules of a spec."""

from __future__ import annotations

from typing import Any

from keras import ops

from nfspec.backends.kernels.plain import pad_image
from nfspec.backends.layers.base import (
    NFLayer,
    Shape,
    output_image,
    serialisable,
    spatial_axes,
)
from nfspec.plan import Padding


@serialisable
class SpatialPool(NFLayer):
    """Average or maximum over windows; a maximum does not see padding.

    Args:
        kind: `avg` or `max`.
        window: Side, px.
        strides: px.
        padding: `same`, `symmetric` or `valid`.
        data_format: `channels_last` or `channels_first`.
        counted: True if an average counts padding, as zeros.
    """

    def __init__(
        self,
        kind: str,
        window: int,
        *,
        strides: int,
        padding: Padding = "same",
        counted: bool = False,
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.window = window
        self.strides = strides
        self.padding = padding
        self.counted = counted
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        fmt, padding = self.data_format, str(self.padding)
        if self.kind == "avg":
            if self.counted:
                x, padding = pad_image(x, self.window, self.strides, padding, fmt, 0.0, whole=True)
            return self.kernels.average_pool(x, self.window, self.strides, padding, fmt)
        x, padding = pad_image(x, self.window, self.strides, padding, fmt, float("-inf"))
        return ops.max_pool(x, self.window, self.strides, padding, fmt)

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
            "counted": self.counted,
            "data_format": self.data_format,
        }


@serialisable
class SpatialMean(NFLayer):
    """`scale` times the mean over height and width: images to (N, C)."""

    def __init__(self, *, scale: float = 1.0, data_format: str = "channels_last", **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = scale
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=spatial_axes(self.data_format))
        return mean if self.scale == 1.0 else mean * self.scale

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        gone = spatial_axes(self.data_format)
        return tuple(side for axis, side in enumerate(input_shape) if axis not in gone)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "data_format": self.data_format}
