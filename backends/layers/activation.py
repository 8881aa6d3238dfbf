"""Activations scaled to unit variance (Brock et al. 2021, arXiv:2101.08692, §3.3)."""

from __future__ import annotations

from typing import Any

from nfspec.backends.layers.base import NFLayer, serialisable
from nfspec.plan.activations import DEEPMIND_SLOPE


@serialisable
class ScaledActivation(NFLayer):
    """`gamma · beta · f(x)`, or `gamma · f(beta · x)` where `beta_at` is `before`.

    Args:
        kind: A spec's name of an activation, such as `gelu_tanh`.
        gamma: Makes the output's variance 1.
        beta: 1/expected std of the block's input.
        beta_at: `after` or `before` the activation.
        slope: Slope of `leaky_relu` for x < 0.
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

    def call(self, x: Any) -> Any:
        before = self.beta_at == "before"
        after = self.gamma if before else self.gamma * self.beta
        x = x * self.beta if before and self.beta != 1.0 else x
        y = self.kernels.activate(self.kind, self.slope)(x)
        return y if after == 1.0 else y * after

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "gamma": self.gamma,
            "beta": self.beta,
            "beta_at": self.beta_at,
            "slope": self.slope,
        }
