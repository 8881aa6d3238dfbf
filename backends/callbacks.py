"""A Keras callback that logs the fraction of units that AGC clips."""

from __future__ import annotations

from typing import Any

import keras

from nfspec.backends.optimizers import AGC
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.errors import InputError


class ClipFraction(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Logs the fraction of units that AGC clipped, as `clip_fraction`.

    After a batch it is that of its step, after an epoch the mean over its steps, where each layer's
    is logged too, as `clip_fraction/stages.0.blocks.0.conv0`, if `layers` is set. Put it before
    callbacks that write the logs down.

    Args:
        layers: Log each layer's at the end of an epoch.
    """

    def __init__(self, layers: bool = False):
        super().__init__()
        self.layers = layers
        self.steps = 0  # that the optimizer had taken when last looked at
        self.sums: dict[str, float] = {}  # of clipped units, by layer
        self.units: dict[str, int] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.sums, self.units = {}, {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        optimizer = first_of_kind(self.model.optimizer, AGC)
        if optimizer is None:
            raise InputError(
                "ClipFraction: the model's optimizer does not clip; wrap it in nfspec.agc"
            )
        steps = int(keras.ops.convert_to_numpy(optimizer.iterations))
        if steps == self.steps:
            return  # a micro-batch, whose gradients were put aside
        self.steps = steps
        clipped, units = 0.0, 0
        for name, (fraction, of_tensor) in optimizer.clip_fractions().items():
            layer = name.rpartition(".")[0]
            self.sums[layer] = self.sums.get(layer, 0.0) + fraction * of_tensor
            self.units[layer] = self.units.get(layer, 0) + of_tensor
            clipped, units = clipped + fraction * of_tensor, units + of_tensor
        if logs is not None:
            logs["clip_fraction"] = clipped / max(units, 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is None or not self.units:
            return
        logs["clip_fraction"] = sum(self.sums.values()) / sum(self.units.values())
        if self.layers:
            for layer, clipped in self.sums.items():
                logs[f"clip_fraction/{layer}"] = clipped / self.units[layer]
