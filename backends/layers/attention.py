"""Channel attention: squeeze-and-excitation (arXiv:1709.01507) and ECA (arXiv:1910.03151)."""

from __future__ import annotations

from typing import Any, Literal

from keras import ops

from nfspec.backends.layers.base import (
    ZEROS,
    NFLayer,
    Shape,
    channel_axis,
    gated_shape,
    over_image,
    serialisable,
    spatial_axes,
)
from nfspec.plan import Init
from nfspec.plan.activations import DEEPMIND_SLOPE


@serialisable
class SqueezeExcite(NFLayer):
    """`gain · sigmoid(fc1(f(fc0(mean_hw(x))))) · x`, or the factor of x alone, (N, C).

    Parameters: fc0.kernel (C, hidden), fc0.bias, fc1.kernel (hidden, C), fc1.bias.

    Args:
        hidden: Width between the dense layers.
        gain: 2 in NFNets, since a sigmoid halves on average.
        kind, gamma, slope: The activation f between the dense layers, and its scale.
        init: Distribution of the kernels, of std 1/sqrt(fan-in): `normal`, or `truncated_normal`,
            which is cut at two std.
        gate_only: Return the factor alone.
        data_format: `channels_last` or `channels_first`.
    """

    def __init__(
        self,
        hidden: int,
        *,
        gain: float = 2.0,
        kind: str = "relu",
        gamma: float = 1.0,
        slope: float = DEEPMIND_SLOPE,
        init: Literal["normal", "truncated_normal"] = "truncated_normal",
        gate_only: bool = False,
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.gain = gain
        self.kind = kind
        self.gamma = gamma
        self.slope = slope
        self.init = init
        self.gate_only = gate_only
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[channel_axis(self.data_format)]
        hidden = self.hidden
        w0, w1 = (Init(self.init, fan_in**-0.5) for fan_in in (channels, hidden))
        wide = {"autocast": False}
        self.w0 = self.add_parameter("fc0.kernel", "kernel", (channels, hidden), w0, **wide)
        self.b0 = self.add_parameter("fc0.bias", "bias", (hidden,), ZEROS, **wide)
        self.w1 = self.add_parameter("fc1.kernel", "kernel", (hidden, channels), w1, **wide)
        self.b1 = self.add_parameter("fc1.bias", "bias", (channels,), ZEROS, **wide)

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=spatial_axes(self.data_format))
        function = self.kernels.activate(self.kind, self.slope)
        w0, b0 = self.read("fc0.kernel"), self.read("fc0.bias")
        w1, b1 = self.read("fc1.kernel"), self.read("fc1.bias")
        hidden = function(self.kernels.dense(mean, w0, b0)) * self.gamma
        gate = ops.sigmoid(self.kernels.dense(hidden, w1, b1)) * self.gain
        return gate if self.gate_only else self.kernels.gated(x, over_image(gate, self.data_format))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return gated_shape(input_shape, self.gate_only, self.data_format)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "gain": self.gain,
            "kind": self.kind,
            "gamma": self.gamma,
            "slope": self.slope,
            "init": self.init,
            "gate_only": self.gate_only,
            "data_format": self.data_format,
        }


@serialisable
class EfficientChannelAttention(NFLayer):
    """`gain · sigmoid(kernel ⋆ mean_hw(x)) · x`, the kernel sliding over zero-padded channels; or
    the factor of x alone, (N, C).

    Parameter: kernel (kernel_size,).

    Args:
        kernel_size: Taps, odd.
        gain: 2 in NFNets.
        gate_only: Return the factor alone.
        data_format: `channels_last` or `channels_first`.
    """

    def __init__(
        self,
        kernel_size: int,
        *,
        gain: float = 2.0,
        gate_only: bool = False,
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.gain = gain
        self.gate_only = gate_only
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        init = Init("uniform", self.kernel_size**-0.5)
        self.kernel = self.add_parameter(
            "kernel", "kernel", (self.kernel_size,), init, autocast=False
        )

    def call(self, x: Any) -> Any:
        mean = ops.expand_dims(ops.mean(x, axis=spatial_axes(self.data_format)), 2)
        kernel = ops.reshape(self.read("kernel"), (self.kernel_size, 1, 1))
        # In the kernel's own dtype, since its gradient is a sum over all images and channels.
        mixed = ops.conv(ops.cast(mean, kernel.dtype), kernel, 1, "same", "channels_last")
        gate = ops.sigmoid(ops.cast(ops.squeeze(mixed, 2), x.dtype)) * self.gain
        return gate if self.gate_only else self.kernels.gated(x, over_image(gate, self.data_format))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return gated_shape(input_shape, self.gate_only, self.data_format)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "gain": self.gain,
            "gate_only": self.gate_only,
            "data_format": self.data_format,
        }
