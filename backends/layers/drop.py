"""Layers that drop at random in training: stochastic depth, and dropout before the classifier."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras import ops

from nfspec.backends.layers.base import NFLayer, serialisable


class Drop(NFLayer):
    """In training, zero with probability `rate`, with draws that a saved model goes on with.

    Keras's Dropout does not: its generator's state is not saved, and on PyTorch it draws from
    the global one (https://github.com/keras-team/keras/issues/19796, as of 3.15).
    """

    per_image = False  # one draw for each image, or one for each element

    def __init__(self, rate: float, *, rescale: bool, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.rescale = rescale
        self.seed = seed
        # On PyTorch the host reads the seed in each call: on a GPU it would wait for it.
        torch = keras.backend.backend() == "torch"
        with keras.device("cpu") if torch else contextlib.nullcontext():
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or self.rate == 0.0:
            return x
        return self.drop(x, self.uniform(self.draws(x), x))

    def uniform(self, shape: tuple[Any, ...], x: Any) -> Any:
        """The next numbers of [0, 1), on the device of `x`."""
        return self.kernels.uniform(shape, self.seed_generator, x)

    def draws(self, x: Any) -> tuple[Any, ...]:
        """The shape of the numbers that decide what of a tensor is dropped."""
        shape = tuple(ops.shape(x))
        return (shape[0], *(1 for _ in shape[1:])) if self.per_image else shape

    def drop(self, x: Any, drawn: Any) -> Any:
        """Zero where a number of [0, 1) is below the rate.

        Args:
            x: A tensor.
            drawn: Numbers of the shape that `draws` says, in float32: bfloat16 has too few values
                between 0 and 1 for small rates.
        """
        kept = 1.0 / (1.0 - self.rate) if self.rescale else 1.0
        # Whatever keras.config.floatx() is.
        kept, gone = (ops.convert_to_tensor(factor, "float32") for factor in (kept, 0.0))
        return x * ops.cast(ops.where(drawn >= self.rate, kept, gone), x.dtype)

    def save_own_variables(self, store: Any) -> None:
        store["seed"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["seed"])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "rate": self.rate, "rescale": self.rescale, "seed": self.seed}


@serialisable
class StochasticDepth(Drop):
    """In training, zero an image's residual with probability `rate` (Huang et al. 2016).

    Args:
        rate: Probability of being dropped.
        rescale: Divide what is kept by 1 - rate, as timm does and the original does not.
        seed: For a repeatable sequence.
    """

    per_image = True

    def __init__(self, rate: float, *, rescale: bool = False, **kwargs: Any):
        super().__init__(rate, rescale=rescale, **kwargs)


@serialisable
class Dropout(Drop):
    """In training, zero each element with probability `rate` (Srivastava et al. 2014).

    Args:
        rate: Probability of being dropped.
        rescale: Divide what is kept by 1 - rate.
        seed: For a repeatable sequence.
    """

    def __init__(self, rate: float, *, rescale: bool = True, **kwargs: Any):
        super().__init__(rate, rescale=rescale, **kwargs)
