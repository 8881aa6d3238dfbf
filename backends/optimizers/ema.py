"""The moving average of the parameters, with the original's warm decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from nfspec.backends.kernels import Kernels, kernels, zeros
from nfspec.backends.optimizers.wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="nfspec")
class EMA(OptimizerWrapper):
    """Keeps `average = d · average + (1 - d) · parameter` after each step of `inner`.

    Averages start as the parameters are before the first step. `nfspec.params_of(model,
    average=True)` reads them, and `keras.callbacks.SwapEMAWeights` evaluates with them if this is
    the outermost optimizer but for a LossScaleOptimizer. Unlike Keras's own average, they never
    replace the parameters at the end of `fit`.

    Source: deepmind-research/nfnets/utils.py, `tf1_ema`.

    Args:
        inner: Any Keras optimizer.
        decay: d.
        warm: d is `min(decay, (1 + t) / (10 + t))` after t earlier steps.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        decay: float = 0.99999,
        warm: bool = True,
        name: str | None = None,
    ):
        super().__init__(inner, name=name)
        self.decay = decay
        self.warm = warm
        self.use_ema = True  # what keras.callbacks.SwapEMAWeights looks for

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._model_variables_moving_average = self.stepper.add_optimizer_variables(
            variables, "average", zeros
        )
        keys = map(self.stepper._var_key, variables)
        self._averages = dict(zip(keys, self._model_variables_moving_average, strict=True))

    @property
    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Each trained variable and its average."""
        return list(
            zip(self._trainable_variables, self._model_variables_moving_average, strict=True)
        )

    def before(self, gradients: list[Any], variables: Sequence[Any]) -> list[Any]:
        # Not when built: weights may be loaded after that, and TensorFlow cannot compile with XLA
        # a first step that makes variables out of others.
        first = ops.equal(self.stepper.iterations, 0)
        self._kernels.start_averages(self.stepper, self._of(variables), variables, first)
        return gradients

    def after(self, variables: Sequence[Any]) -> None:
        wide = "float64" if any(v.dtype == "float64" for v in variables) else "float32"
        decay: Any = ops.convert_to_tensor(self.decay, wide)
        if self.warm:
            t = ops.cast(self.stepper.iterations, wide)
            decay = ops.minimum(decay, (1.0 + t) / (10.0 + t))
        self._kernels.average_all(self.stepper, self._of(variables), variables, decay)

    @property
    def _kernels(self) -> Kernels:
        """The kernels of the optimizer within, where it is one that chooses."""
        return kernels(getattr(self.stepper, "plain", False))

    def _of(self, variables: Sequence[Any]) -> list[Any]:
        return [self._averages[self.stepper._var_key(variable)] for variable in variables]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay, "warm": self.warm}
