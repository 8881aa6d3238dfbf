"""Convolution of folded networks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from nfspec.activations import DEEPMIND_SLOPE
from nfspec.backends.layers.base import NFLayer, Shape, channel_axis, output_image, serialisable
from nfspec.plan import Padding


@serialisable
class Conv2D(NFLayer):
    """A conv and an activation without gamma. Parameters: kernel (k, k, I/groups, O), bias (O,).

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel, odd.
        strides: In both directions.
        groups: Groups of channels.
        padding: `same` (an odd pixel goes after), `symmetric` or `valid`.
        kind: A spec's name of an activation, such as `gelu_tanh`.
        slope: Of `leaky_relu` for x < 0.
        data_format: `channels_last` or `channels_first`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        groups: int = 1,
        padding: Padding = "same",
        kind: str = "identity",
        slope: float = DEEPMIND_SLOPE,
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.groups = groups
        self.padding = padding
        self.kind = kind
        self.slope = slope
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        inputs = input_shape[channel_axis(self.data_format)] // self.groups
        shape = (self.kernel_size, self.kernel_size, inputs, self.filters)
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
        self.kernel = self.add_parameter("kernel", "kernel", shape, initializer)
        self.bias = self.add_parameter("bias", "bias", shape[3:], "zeros")

    def call(self, x: Any) -> Any:
        kernel, bias = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)
        return self.kernels.convolve_activated(
            x,
            kernel,
            bias,
            self.strides,
            self.padding,
            self.data_format,
            self.kind,
            self.slope,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return output_image(
            input_shape,
            self.filters,
            self.kernel_size,
            self.strides,
            self.padding,
            self.data_format,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
            "padding": self.padding,
            "kind": self.kind,
            "slope": self.slope,
            "data_format": self.data_format,
        }
