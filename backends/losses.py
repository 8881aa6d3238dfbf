"""The loss of a training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="nfspec")
class CrossEntropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Softmax cross-entropy of logits: labels are one-hot or mixed, (N, classes), or the numbers of
    classes, (N,) or (N, 1)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        if y_true.shape[1:] in ((), (1,)) and classes != 1:
            numbers = ops.reshape(ops.cast(y_true, "int32"), (-1,))
            y_true = ops.one_hot(numbers, classes, dtype=y_pred.dtype)
        return super().call(y_true, y_pred)
