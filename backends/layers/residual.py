"""The sum at the end of a residual block (Brock et al. 2021, arXiv:2102.06171, §4.1)."""

from __future__ import annotations

from typing import Any

from keras import ops

from nfspec.backends.layers.base import NFLayer, Shape, over_image, serialisable
from nfspec.plan import Init


@serialisable
class Residual(NFLayer):
    """`alpha · skip_gain · branch + shortcut`, called on the list [branch, shortcut].

    A third input is a gate, (N, C), that multiplies the branch, too.

    Parameter: skip_gain, a scalar, where it is learned.

    Args:
        alpha: Scale of the residual branch.
        skip_gain: True to learn a scalar that multiplies the branch.
        skip_gain_init: Its initial value.
        data_format: `channels_last` or `channels_first`.
    """

    def __init__(
        self,
        alpha: float,
        *,
        skip_gain: bool = True,
        skip_gain_init: float = 0.0,
        data_format: str = "channels_last",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.alpha = alpha
        self.skip_gain = skip_gain
        self.skip_gain_init = skip_gain_init
        self.data_format = data_format

    def build(self, input_shape: list[Shape]) -> None:
        if self.skip_gain:
            init = Init("constant", self.skip_gain_init)
            self.scale = self.add_parameter("skip_gain", "skip_gain", (), init, autocast=False)

    def call(self, inputs: list[Any]) -> Any:
        branch, shortcut, *gate = inputs
        scale: Any = self.alpha
        if self.skip_gain:
            scale = self.read("skip_gain") * scale
        if gate:
            scale = over_image(ops.multiply(gate[0], scale), self.data_format)
        return self.kernels.scale_add(branch, scale, shortcut)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "skip_gain": self.skip_gain,
            "skip_gain_init": self.skip_gain_init,
            "data_format": self.data_format,
        }
