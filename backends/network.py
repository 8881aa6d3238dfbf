"""The model that a plan is compiled to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from nfspec.backends.layers import Conv2D
from nfspec.backends.layers.base import NFLayer
from nfspec.backends.settings import Float32Data
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.initialise import init
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import fold

Base: Any = keras.Model
if keras.backend.backend() == "torch":
    from nfspec.backends.module import TorchModel

    Base = TorchModel


@keras.saving.register_keras_serializable(package="nfspec")
class Network(Float32Data, Base):  # type: ignore[misc]  # Keras has no types
    """A functional model that knows its plan, and keeps it through copies and files.

    On PyTorch it is a module like any other: see `nfspec.backends.module`.
    """

    _plan: Plan | None = None
    _replicated: tuple[Any] | None = None  # a tuple, so that it is not taken for a part of this

    @property
    def plan(self) -> Plan | None:
        """What it was compiled from; None where that was not a spec."""
        spec = next((layer.spec for layer in self.layers if getattr(layer, "spec", "")), "")
        if self._plan is None and spec:
            plan = resolve(Spec.model_validate_json(spec))
            folded = any(isinstance(layer, Conv2D) for layer in self.layers)
            self._plan = fold(plan, init(plan)).plan if folded else plan
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def dtype_policy(self) -> Any:
        """The layers' policy, by which Keras decides whether to scale the loss."""
        made = (layer for layer in self.layers if isinstance(layer, NFLayer))
        return next(made).dtype_policy

    def __reduce__(self) -> Any:
        # Keras's files, by which models are copied, say neither of these.
        fixed = [
            v.canonical
            for v in _parameters(self)
            if not (v.trainable and getattr(v.value, "requires_grad", True))
        ]
        return _copied, (*super().__reduce__(), fixed, getattr(self, "training", False))

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
        return super().call(inputs, training=training, mask=mask)

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


def _parameters(model: keras.Model) -> Iterator[keras.Variable]:
    for layer in model.layers:
        if isinstance(layer, NFLayer):
            yield from layer.named.values()


def _copied(make: Callable[..., Network], args: Any, fixed: list[str], training: bool) -> Network:
    """A copied network whose parameters are trained, or not, as the original's are."""
    model = make(*args)
    for variable in _parameters(model):
        if variable.canonical in fixed:
            variable.trainable = False
    if training:
        model.train()
    return model
