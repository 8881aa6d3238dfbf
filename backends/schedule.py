"""The original's learning rate: a linear rise from zero, then a cosine."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="nfspec")
class WarmupCosine(keras.optimizers.schedules.CosineDecay):  # type: ignore[misc]
    """`peak · t / warmup` up to step `warmup`, then a cosine that ends at `final` at step `steps`.

    Source: deepmind-research/nfnets/optim.py, `WarmupCosineDecay`.

    Args:
        peak: Highest learning rate.
        steps: Steps of the whole run.
        warmup: Steps of the rise, not necessarily whole.
        final: Learning rate at the end.
        accumulation: Micro-batches in a step; Keras asks for the rate of each micro-batch.
    """

    def __init__(
        self,
        peak: float,
        steps: float,
        warmup: float = 0.0,
        final: float = 0.0,
        accumulation: int = 1,
    ):
        # Keras computes the rate in the dtype of this number; for a Python number that is floatx.
        super().__init__(
            np.float32(0.0),
            steps - warmup,
            alpha=final / peak,
            warmup_target=peak,
            warmup_steps=warmup,
        )
        self.config = {
            "peak": peak,
            "steps": steps,
            "warmup": warmup,
            "final": final,
            "accumulation": accumulation,
        }
        self.accumulation = accumulation

    def __call__(self, step: Any) -> Any:
        return super().__call__(ops.floor_divide(step, self.accumulation))

    def get_config(self) -> dict[str, Any]:
        return self.config
