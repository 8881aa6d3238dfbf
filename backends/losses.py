"""The loss of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from nfspec.errors import InputError


@keras.saving.register_keras_serializable(package="nfspec")
class CrossEntropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Softmax cross-entropy of logits: labels are one-hot or mixed, (N, classes), or the numbers of
    classes, (N,) or (N, 1).

    With a weight for each class, the loss of an image is multiplied with the weight of its class,
    or with the mean of the weights by the shares of its classes. It is smoothed all the same.
    """

    def __init__(self, *, class_weights: Sequence[float] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.class_weights = None if class_weights is None else list(class_weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        if y_true.shape[1:] in ((), (1,)) and classes != 1:
            numbers = ops.reshape(ops.cast(y_true, "int32"), (-1,))
            y_true = ops.one_hot(numbers, classes, dtype=y_pred.dtype)
        elif y_true.shape[-1] not in (None, classes):
            raise InputError(
                f"labels: expected numbers of classes, (N,), or shares of {classes}, (N, {classes})"
                f"; found the shape {tuple(y_true.shape)}; load the spec with as many classes as "
                "the labels have: head.classes"
            )
        losses = super().call(y_true, y_pred)
        if self.class_weights is None:
            return losses
        # Not a product of matrices, whose precision is low on some accelerators.
        weights = ops.convert_to_tensor(self.class_weights, dtype=losses.dtype)
        return losses * ops.sum(ops.cast(y_true, losses.dtype) * weights, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}
