"""Where the branches of a block meet (Brock et al. 2021, arXiv:2102.06171, §4.1)."""

from __future__ import annotations

from typing import Any

import keras

from nfspec.backends.layers.base import NFLayer, Shape, serialisable


@serialisable
class Residual(NFLayer):
    """`alpha · skip_gain · branch + shortcut`, called on the list [branch, shortcut].

    Parameter: skip_gain, a scalar, where it is learned.

    Args:
        alpha: Scale of the residual branch.
        skip_gain: Whether to learn a scalar.
        skip_gain_init: Its initial value.
    """

    def __init__(
        self,
        alpha: float,
        *,
        skip_gain: bool = True,
        skip_gain_init: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.alpha = alpha
        self.skip_gain = skip_gain
        self.skip_gain_init = skip_gain_init

    def build(self, input_shape: list[Shape]) -> None:
        if self.skip_gain:
            initializer = keras.initializers.Constant(self.skip_gain_init)
            self.scale = self.add_parameter("skip_gain", "skip_gain", (), initializer)

    def call(self, inputs: list[Any]) -> Any:
        branch, shortcut = inputs
        if self.skip_gain:
            branch = branch * self.scale
        return branch * self.alpha + shortcut

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "skip_gain": self.skip_gain,
            "skip_gain_init": self.skip_gain_init,
        }
