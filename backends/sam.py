"""Sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412) under Keras's `fit`."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras import ops, tree

from nfspec.backends.lent import Lends
from nfspec.backends.network import Network, TracedOnce
from nfspec.backends.settings import Float32Data


def _parts() -> int:
    """Number of devices over which Keras splits a batch; JAX alone has more than one here."""
    found = keras.distribution.distribution()
    if found is None:
        return 1
    mesh = found.device_mesh
    return int(mesh.shape[mesh.axis_names.index(found.batch_dim_name)])


@keras.saving.register_keras_serializable(package="nfspec")
class SharpnessAware(TracedOnce, Lends, Float32Data, keras.Model):  # type: ignore[misc]  # Keras has no types
    """Trains a model with the gradient at `w + rho · g / ‖g‖`, g being the gradient at w.

    ‖g‖ is over all parameters together. The optimizer steps from w, and clips, decays and averages
    as without SAM. The loss reported is that of the whole batch at the perturbed parameters. On
    several devices each ascends on its own part of the batch under TensorFlow, as in the paper;
    under JAX on those of all devices together. Dropout is drawn anew for the second pass.

    Args:
        model: A model that `nfspec.compile` returned, without taps; it shares its parameters.
        rho: Length of the ascent, in parameter space.
        fraction: Share of the batch that g is computed on: the first images of each device's part.

    Attributes:
        parts: Number of equal parts of the batch, of which each is on another device. If None,
            those of Keras's distribution.
    """

    def __init__(self, model: keras.Model, rho: float = 0.05, fraction: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.model = model
        self.rho = rho
        self.fraction = fraction
        self.parts: int | None = None
        self._ascent: list[Any] | None = None  # added to the parameters in a forward pass
        self.build(model.input_shape)

    def build(self, input_shape: Any) -> None:
        self.built = True

    @property
    def dtype_policy(self) -> Any:
        """The model's policy, by which Keras decides whether to scale the loss."""
        return self.model.dtype_policy

    def call(self, x: Any, training: bool | None = None) -> Any:
        if self._ascent is None:
            return self.model(x, training=training)
        moved = [v.value + e for v, e in zip(self._weights_now(), self._ascent, strict=True)]
        state = self.model.non_trainable_variables
        y, after = self.model.stateless_call(moved, [v.value for v in state], x, training=training)
        for variable, value in zip(state, after, strict=True):
            variable.assign(value)
        return y

    def _weights_now(self) -> list[keras.Variable]:
        return self.model.trainable_variables

    def _first(self, data: Any) -> Any:
        """The images, or whatever else has an entry for each, that the ascent is computed on."""
        if self.fraction == 1.0:
            return data

        parts = self.parts or _parts()

        def first(x: Any) -> Any:
            size = ops.shape(x)[0]
            if isinstance(size, int):
                # Images that change their device would have to be exchanged.
                count = parts if size % parts == 0 else 1
                few = max(1, round(self.fraction * (size // count)))
                each = ops.reshape(x, (count, size // count, *x.shape[1:]))[:, :few]
                return ops.reshape(each, (count * few, *x.shape[1:]))
            wanted = ops.round(self.fraction * ops.cast(size, "float32"))
            return x[: ops.maximum(1, ops.cast(wanted, "int32"))]

        return tree.map_structure(lambda x: None if x is None else first(x), data)

    def _climb(self, gradients: list[Any]) -> list[Any]:
        """rho · g / ‖g‖, and 0 where g is 0; a constant to whatever differentiates later."""
        gradients = [ops.stop_gradient(ops.cast(g, "float32")) for g in gradients]
        norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in gradients))
        scale = self.rho / ops.where(norm > 0.0, norm, 1.0)
        weights = self._weights_now()
        return [ops.cast(scale * g, v.dtype) for g, v in zip(gradients, weights, strict=True)]

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "jax":
            return super().train_step(*args)  # which calls compute_loss_and_updates
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(args[0])
        self._ascent = self._climb(self._gradients(*self._first((x, y, sample_weight))))
        try:
            return super().train_step(*args)
        finally:
            self._ascent = None

    def _gradients(self, x: Any, y: Any, sample_weight: Any) -> list[Any]:
        """Gradients of the loss as the optimizer scales it; the norm divides the scale out."""

        def loss() -> Any:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            return self.optimizer.scale_loss(loss)

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                value = loss()
            return list(tape.gradient(value, self._weights_now()))
        import torch

        alone = self.model.alone() if isinstance(self.model, Network) else contextlib.nullcontext()
        with alone:
            return list(torch.autograd.grad(loss(), [v.value for v in self._weights_now()]))

    def compute_loss_and_updates(
        self,
        trainable_variables: Any,
        non_trainable_variables: Any,
        metrics_variables: Any,
        x: Any,
        y: Any,
        sample_weight: Any,
        training: bool = False,
        optimizer_variables: Any = None,
    ) -> Any:
        """JAX's: the loss at the perturbed parameters, as a function of the unperturbed ones."""
        evaluate = super().compute_loss_and_updates
        if training:
            import jax

            def loss(values: Any) -> Any:
                return evaluate(
                    values,
                    non_trainable_variables,
                    metrics_variables,
                    *self._first((x, y, sample_weight)),
                    training=True,
                    optimizer_variables=optimizer_variables,
                )

            fixed = [jax.lax.stop_gradient(v) for v in trainable_variables]
            gradients, (_, _, non_trainable_variables, _) = jax.grad(loss, has_aux=True)(fixed)
            ascent = self._climb(gradients)
            trainable_variables = [v + e for v, e in zip(trainable_variables, ascent, strict=True)]
        return evaluate(
            trainable_variables,
            non_trainable_variables,
            metrics_variables,
            x,
            y,
            sample_weight,
            training=training,
            optimizer_variables=optimizer_variables,
        )

    def get_config(self) -> dict[str, Any]:
        model = keras.saving.serialize_keras_object(self.model)
        return {"name": self.name, "model": model, "rho": self.rho, "fraction": self.fraction}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SharpnessAware:
        model = keras.saving.deserialize_keras_object(config.pop("model"), custom_objects)
        return cls(model, **config)
