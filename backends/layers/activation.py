"""Activations scaled to unit variance (Brock et al. 2021, arXiv:2101.08692, §3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from nfspec.activations import DEEPMIND_SLOPE
from nfspec.backends.layers.base import NFLayer, serialisable


def activation(kind: str, slope: float = DEEPMIND_SLOPE) -> Callable[[Any], Any]:
    """The function behind a spec's name of an activation, without gamma.

    Every argument is given: `keras.ops.gelu` and `keras.activations.gelu` have different defaults,
    and so have Keras's and JAX's `leaky_relu`.
    """
    functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda x: x,
        "celu": lambda x: ops.celu(x, alpha=1.0),
        "elu": lambda x: ops.elu(x, alpha=1.0),
        "gelu_erf": lambda x: ops.gelu(x, approximate=False),
        "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
        "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=slope),
        "log_sigmoid": ops.log_sigmoid,
        "relu": ops.relu,
        "relu6": ops.relu6,
        "selu": ops.selu,
        "sigmoid": ops.sigmoid,
        "silu": ops.silu,
        "soft_sign": ops.softsign,
        "softplus": ops.softplus,
        "tanh": ops.tanh,
    }
    return functions[kind]


@serialisable
class ScaledActivation(NFLayer):
    """`gamma · beta · f(x)`, or `gamma · f(beta · x)` where `beta_at` is `before`.

    Args:
        kind: A spec's name of an activation, such as `gelu_tanh`.
        gamma: Makes the output's variance 1.
        beta: 1/expected std of the block's input.
        beta_at: `after` or `before` the activation.
        slope: Of `leaky_relu` for x < 0.
    """

    def __init__(
        self,
        kind: str,
        *,
        gamma: float = 1.0,
        beta: float = 1.0,
        beta_at: str = "after",
        slope: float = DEEPMIND_SLOPE,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.gamma = gamma
        self.beta = beta
        self.beta_at = beta_at
        self.slope = slope
        self.function = activation(kind, slope)

    def call(self, x: Any) -> Any:
        if self.beta_at == "before":
            return self.function(x * self.beta) * self.gamma
        return self.function(x) * (self.gamma * self.beta)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "gamma": self.gamma,
            "beta": self.beta,
            "beta_at": self.beta_at,
            "slope": self.slope,
        }
