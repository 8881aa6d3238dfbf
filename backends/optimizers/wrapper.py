"""An optimizer around another: it acts on gradients before the step, on parameters after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from nfspec.errors import InputError


class OptimizerWrapper(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """An optimizer around another, which it hands its gradients and steps to.

    Subclasses act where the inner optimizer takes its step, and nowhere else: there gradients are
    unscaled, accumulated over micro-batches and summed over devices, and what they do happens once
    for each step. Their variables belong to the optimizer that takes the step, so that code that
    undoes a step (gradient accumulation on JAX) undoes theirs.

    Args:
        inner: Any Keras optimizer but a LossScaleOptimizer, which goes outside.
    """

    def __init__(self, inner: keras.optimizers.Optimizer, name: str | None = None):
        if isinstance(inner, keras.optimizers.LossScaleOptimizer):
            raise InputError(
                f"{type(self).__name__} goes inside a LossScaleOptimizer, which unscales gradients "
                f"before it: LossScaleOptimizer({type(self).__name__}(...))"
            )
        if hasattr(inner, "optimizers"):
            raise InputError(
                f"{type(self).__name__}: {type(inner).__name__} holds several optimizers; wrap "
                "each of them instead"
            )
        super().__init__(learning_rate=0.0, name=name)
        # Not `inner_optimizer`: keras.callbacks.SwapEMAWeights takes what has that for a
        # LossScaleOptimizer and looks for averages inside.
        self.inner = inner

    @property
    def stepper(self) -> keras.optimizers.Optimizer:
        """The innermost optimizer, which takes the step."""
        return self.inner.stepper if isinstance(self.inner, OptimizerWrapper) else self.inner

    def before(self, gradients: list[Any], variables: Sequence[Any]) -> list[Any]:
        """Called with whole gradients before the step; returns those to use."""
        return gradients

    def after(self, variables: Sequence[Any]) -> None:
        """Called with the variables after the step."""

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        self.inner.build(variables)
        super().build(variables)
        self._act_around_update()

    def _act_around_update(self) -> None:
        stepper = self.stepper
        update = stepper.update_step

        def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
            update(self.before([gradient], [variable])[0], variable, learning_rate)
            self.after([variable])

        stepper.update_step = update_step
        if not hasattr(stepper, "_parallel_update_step"):
            return
        # On PyTorch, Keras's own optimizers and ours update all variables in one call:
        # keras/src/backend/torch/optimizers/torch_parallel_optimizer.py.
        parallel = stepper._parallel_update_step

        def parallel_update_step(gradients: Any, variables: Any, learning_rate: Any) -> None:
            parallel(self.before(list(gradients), variables), variables, learning_rate)
            self.after(variables)

        stepper._parallel_update_step = parallel_update_step

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        self.inner.apply(grads, trainable_variables)

    @property
    def variables(self) -> list[keras.Variable]:
        return self.inner.variables

    @property
    def iterations(self) -> Any:
        return self.inner.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> float | None:
        return self.inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None) -> None:
        if hasattr(self, "inner"):  # not while Keras's constructor sets its default
            self.inner.loss_scale_factor = factor

    def scale_loss(self, loss: Any) -> Any:
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        self.inner.finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Nothing: Keras saves `inner` on its own, with all variables."""

    def load_own_variables(self, store: Any) -> None:
        """Nothing, as nothing was saved."""

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> OptimizerWrapper:
        inner = keras.saving.deserialize_keras_object(config.pop("inner"), custom_objects)
        return cls(inner, **config)


def first_of_kind(optimizer: Any, kind: type) -> Any:
    """The first optimizer of a kind, from the outermost inwards; None if there is none."""
    while optimizer is not None and not isinstance(optimizer, kind):
        if isinstance(optimizer, OptimizerWrapper):
            optimizer = optimizer.inner
        elif isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        else:
            return None
    return optimizer
