"""The base class of convolutions, and the convolution of folded networks."""

from __future__ import annotations

import math
from typing import Any

from nfspec.backends.layers.base import (
    ZEROS,
    NFLayer,
    Shape,
    channel_axis,
    output_image,
    serialisable,
)
from nfspec.plan import Init, Padding
from nfspec.plan.activations import DEEPMIND_SLOPE


class Convolution(NFLayer):
    """A conv with bias, whose kernel is (k, k, I/groups, O).

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel, odd.
        strides: In both directions.
        groups: Groups of channels.
        padding: `same` (an odd pixel goes after), `symmetric` or `valid`.
        data_format: `channels_last` or `channels_first`.
        dilation: Distance of the kernel's taps in both directions, px; 1 where strides are not, as
            TensorFlow has no conv with both.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding = "same",
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if strides > 1 and dilation > 1:
            raise ValueError(
                f"{self.name}: strides and dilation cannot both be above 1; "
                f"received strides={strides}, dilation={dilation}"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.padding = padding
        self.data_format = data_format

    def kernel_shape(self, input_shape: Shape) -> tuple[int, int, int, int]:
        """For images of a shape.

        Raises:
            ValueError: Channels cannot be divided into the groups.
        """
        inputs = input_shape[channel_axis(self.data_format)]
        if inputs is None or inputs % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{self.name}: groups={self.groups} must divide input channels and filters; "
                f"received input shape {input_shape}, filters={self.filters}"
            )
        return (self.kernel_size, self.kernel_size, inputs // self.groups, self.filters)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return output_image(
            input_shape,
            self.filters,
            1 + self.dilation * (self.kernel_size - 1),
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
            "dilation": self.dilation,
            "groups": self.groups,
            "padding": self.padding,
            "data_format": self.data_format,
        }


@serialisable
class Conv2D(Convolution):
    """A conv and an activation without gamma. Parameters: kernel (k, k, I/groups, O), bias (O,).

    On PyTorch its kernel is packed for oneDNN when it is first used without gradients on a CPU, and
    packed anew after an assignment; as with autograd, a change through `.data` is not noticed.

    Args:
        filters, kernel_size, strides, dilation, groups, padding, data_format: As of any
            `Convolution`.
        kind: A spec's name of an activation, such as `gelu_tanh`.
        slope: Slope of `leaky_relu` for x < 0.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        kind: str = "identity",
        slope: float = DEEPMIND_SLOPE,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self.kind = kind
        self.slope = slope

    def build(self, input_shape: Shape) -> None:
        shape = self.kernel_shape(input_shape)
        init = Init("normal", math.prod(shape[:3]) ** -0.5)
        self.kernel = self.add_parameter("kernel", "kernel", shape, init)
        self.bias = self.add_parameter("bias", "bias", shape[3:], ZEROS)

    def call(self, x: Any) -> Any:
        return self.kernels.convolve_activated(
            x,
            self.read("kernel"),
            self.read("bias"),
            self.strides,
            self.padding,
            self.data_format,
            self.dilation,
            self.kind,
            self.slope,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind, "slope": self.slope}
