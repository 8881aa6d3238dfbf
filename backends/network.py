"""The model that a plan is compiled to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from nfspec.backends.layers.drop import Drop
from nfspec.plan import INPUT


class Step(NamedTuple):
    """A layer, the values that it reads and writes, and those that nothing reads after it."""

    layer: keras.layers.Layer
    inputs: tuple[str, ...]
    output: str
    last: tuple[str, ...]


@keras.saving.register_keras_serializable(package="nfspec")
class Network(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A functional model.

    On PyTorch, without a compiler, it calls one layer after another and does nothing else. Keras's
    own way to call a layer costs 150 µs, which is a seventh of NFNet-F0's forward pass of one
    image (as of 3.15). A model that was loaded, or that has mixed precision or hooks, is called
    Keras's way.
    """

    _followed: tuple[list[Step], dict[str, str], bool] | None = None
    _replicated: tuple[Any] | None = None  # a tuple, so that it is not taken for a part of this

    def follow(self, steps: list[Step], outputs: dict[str, str], taps: bool) -> None:
        """Say how to do without Keras: what to call in order, and tap name to value."""
        self._followed = (steps, outputs, taps) if _uniform(steps) else None

    def replicate(self) -> None:
        """On PyTorch, average gradients over the processes from now on, through
        DistributedDataParallel."""
        import torch

        class Whole(torch.nn.Module):  # type: ignore[misc]  # PyTorch's types are not read
            def __init__(self, network: Network):
                super().__init__()
                self.network = network

            def forward(self, inputs: Any) -> Any:
                with self.network.alone():
                    return self.network.call(inputs, training=True)

        self._replicated = (torch.nn.parallel.DistributedDataParallel(Whole(self)),)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Without what `replicate` did: gradients are those of this process."""
        replicated, self._replicated = self._replicated, None
        try:
            yield
        finally:
            self._replicated = replicated

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if training and self._replicated is not None:
            return self._replicated[0](inputs)
        if keras.backend.backend() != "torch" or not self._can_follow(inputs):
            return super().call(inputs, training=training, mask=mask)
        assert self._followed is not None
        steps, outputs, taps = self._followed
        values = {INPUT: inputs}
        for layer, names, output, last in steps:
            read = [_as(values[name], layer.compute_dtype) for name in names]
            drawing = {"training": training} if isinstance(layer, Drop) else {}
            values[output] = layer.call(read if len(read) > 1 else read[0], **drawing)
            for name in last:
                del values[name]
        found = {tap: values[name] for tap, name in outputs.items()}
        return found if taps else found["logits"]

    def make_train_function(self, force: bool = False) -> Any:
        optimizer = getattr(self, "optimizer", None)
        if keras.backend.backend() == "tensorflow" and optimizer and not optimizer.built:
            # Otherwise the first step makes the optimizer's variables, and is traced twice for it.
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "torch":
            # Keras lets go of the last step's gradients after the forward pass (as of 3.15); before
            # it, their memory is used again at once, which saves a tenth of the step on CPUs.
            self.zero_grad()
        return super().train_step(*args)

    def _can_follow(self, x: Any) -> bool:
        import torch

        return (
            self._followed is not None
            and isinstance(x, torch.Tensor)
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and x.device.type != "meta"
            and not any(_hooked(step.layer) for step in self._followed[0])
        )


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooked(layer: Any) -> bool:
    return any(getattr(layer, kind) for kind in HOOKS)


def _uniform(steps: list[Step]) -> bool:
    return all(s.layer.compute_dtype == s.layer.variable_dtype for s in steps)


def _as(x: Any, dtype: str) -> Any:
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else keras.ops.cast(x, dtype)
