"""The original's SGD, which is not Keras's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from nfspec.backends.kernels import kernels, zeros
from nfspec.backends.roles import TreatedAs, identify
from nfspec.backends.settings import float32_data


def _distributed() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


@keras.saving.register_keras_serializable(package="nfspec")
class SGD(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """SGD with momentum and weight decay by role.

    With gradient g of parameter p: `g += coupled_weight_decay · p` for roles that decay, then
    `buffer = momentum · buffer + g`, then `p -= learning_rate · (g + momentum · buffer)` with
    Nesterov's momentum and `p -= learning_rate · buffer` without. Keras's SGD has the learning rate
    inside its buffer and its decay outside: the same only at a constant rate without decay.

    Source: deepmind-research/nfnets/optim.py, `SGD`.

    Args:
        learning_rate: A number, or a Keras schedule.
        momentum: Momentum of the buffer.
        nesterov: Nesterov's momentum.
        coupled_weight_decay: Added to the gradient, times the parameter.
        weight_decay_exclude: Roles that do not decay.
        treat_as: As in `nfspec.backends.optimizers.AGC`.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: float = 0.9,
        nesterov: bool = True,
        coupled_weight_decay: float = 0.0,
        weight_decay_exclude: Sequence[str] = ("gain", "bias", "skip_gain"),
        treat_as: TreatedAs | None = None,
        plain: bool = False,
        **kwargs: Any,
    ):
        with float32_data():  # Keras makes the rate a variable of dtype floatx
            super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_weight_decay = coupled_weight_decay
        self.weight_decay_exclude = tuple(weight_decay_exclude)
        self.treat_as = dict(treat_as or {})
        self.plain = plain

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        parts = identify(variables, self.treat_as) if self.coupled_weight_decay else []
        super().build(variables)
        self._decays = {
            self._var_key(variable)
            for variable, part in zip(variables, parts, strict=bool(parts))
            if part is not None and part[1] not in self.weight_decay_exclude
        }
        self._buffers = self.add_optimizer_variables(variables, "momentum", zeros)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self._step([gradient], [variable], learning_rate)

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        # Not where TensorFlow updates the variables of each device in turn.
        if not self.plain and not _distributed():
            self._parallel_update_step(grads, trainable_variables, learning_rate)
        else:
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _parallel_update_step(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        # Not through `update_step`: what acts around an update is around either of the two.
        self._step(gradients, variables, learning_rate)

    def _step(self, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        gradients = [ops.cast(g, v.dtype) for g, v in zip(gradients, variables, strict=True)]
        decays = [
            self.coupled_weight_decay if self._var_key(v) in self._decays else 0.0
            for v in variables
        ]
        buffers = [self._buffers[self._get_variable_index(v)] for v in variables]
        kernels(self.plain).momentum_steps(
            self, variables, buffers, gradients, decays, learning_rate, self.momentum, self.nesterov
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "coupled_weight_decay": self.coupled_weight_decay,
            "weight_decay_exclude": list(self.weight_decay_exclude),
            "treat_as": {path: part and list(part) for path, part in self.treat_as.items()},
            "plain": self.plain,
        }
