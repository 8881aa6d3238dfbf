"""Where the branches of a block meet (Brock et al. 2021, arXiv:2102.06171, §4.1)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from nfspec.backends.layers.base import NFLayer, Shape, serialisable


@serialisable
class StochasticDepth(NFLayer):
    """In training, zero an image's residual with probability `rate` (Huang et al. 2016).

    Args:
        rate: Probability of being dropped.
        rescale: Divide what is kept by 1 - rate, as timm does and the original does not.
        seed: For a repeatable sequence.
    """

    def __init__(
        self, rate: float, *, rescale: bool = False, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.rate = rate
        self.rescale = rescale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or self.rate == 0.0:
            return x
        shape = (ops.shape(x)[0], *(1,) * (len(x.shape) - 1))
        # float32 draws: bfloat16 has too few values between 0 and 1 for small rates.
        draws = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        kept = 1.0 / (1.0 - self.rate) if self.rescale else 1.0
        return x * ops.cast(ops.where(draws >= self.rate, kept, 0.0), x.dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "rate": self.rate, "rescale": self.rescale, "seed": self.seed}


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
