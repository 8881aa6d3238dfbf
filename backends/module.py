"""A network as a `torch.nn.Module` like any other.

Its parameters have the canonical names, whatever was made before in the process, and are all that
`parameters()` and `state_dict()` hold; the seeds of what drops at random are Keras's and stay out.
Where `training=` is not given, `train()` and `eval()` rule, as they do for PyTorch's own layers;
a network starts in `eval()` mode.

Keras's own way to call a layer costs 150 µs, which is a seventh of NFNet-F0's forward pass of one
image (as of 3.15), and PyTorch's compiler and exporters cannot follow it. So a network calls one
layer after another and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from keras import tree

# Not public, as of Keras 3.15: whether variables stand for other tensors at the moment.
from keras.src.backend.common.stateless_scope import in_stateless_scope

from nfspec.backends.layers.base import NFLayer
from nfspec.backends.layers.drop import Drop
from nfspec.backends.steps import by_regions, steps_of
from nfspec.errors import InputError


class Place(torch.nn.Module):  # type: ignore[misc]  # PyTorch's types are not read
    """A node of the tree of canonical names: it holds other nodes, and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.variables_of: dict[str, Any] = {}  # Keras's, by the last part of their names

    def hold(self, local: str, variable: Any) -> None:
        """Register the parameter of a Keras variable."""
        self.register_parameter(local, variable.value)
        self.variables_of[local] = variable

    def __setattr__(self, name: str, value: Any) -> None:
        """Let Keras's variable have what takes its parameter's place, such as FSDP2's parts."""
        super().__setattr__(name, value)
        variable = self.__dict__.get("variables_of", {}).get(name)
        if variable is not None and self._parameters.get(name) is value:
            variable._value = value

    def forward(self, compute: Callable[..., Any], *given: Any) -> Any:
        """Call the layers of a block: where FSDP2 gathers its parameters before, and lets go of
        them after it."""
        return compute(*given)

    def held(self, local: str) -> Any:
        """A parameter by the last part of its name; None where Keras has to say what it is."""
        if not torch.compiler.is_compiling() and in_stateless_scope():
            return None
        return getattr(self, local.rpartition(".")[2])


class TorchModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A functional model of layers that are called once each, with nothing but their inputs."""

    def __init__(self, *args: Any, **kwargs: Any):
        # Keras takes these arguments, and before 3.15 these alone, for those of a functional model.
        super().__init__(*args, **kwargs)
        # Past Keras, which would track the layers a second time.
        object.__setattr__(self, "steps", steps_of(self))
        self._hold_parameters()
        self.eval()

    def _hold_parameters(self) -> None:
        for layer in self.layers:
            if not isinstance(layer, NFLayer):
                continue
            for local, variable in layer.named.items():
                place: torch.nn.Module = self
                *path, name = variable.canonical.split(".")
                for part in path:
                    if part not in place._modules:
                        place.add_module(part, Place())
                    place = place._modules[part]
                place.hold(name, variable)
                layer.places[local] = place

    def _track_variables(self) -> None:
        """Do not make Keras's own list, whose names depend on what was made before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.nn.Module.__call__(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def forward(self, inputs: Any, training: Any = None, **others: Any) -> Any:
        """Call the layers.

        Args:
            inputs: Images, in the model's layout.
            training: True to drop at random; None for the mode that `train()` or `eval()` set last.
            others: Arguments that Keras adds.
        """
        if torch.compiler.is_compiling():
            return self.call(inputs, training=training)
        return super().forward(inputs, training=training, **others)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        own = training is None
        training = self.training if own else training
        if isinstance(inputs, np.ndarray):  # of `train_on_batch`
            inputs = keras.ops.convert_to_tensor(inputs, self.inputs[0].dtype)
        if not isinstance(inputs, torch.Tensor) or inputs.device.type == "meta":
            return super().call(inputs, training=training, mask=mask)
        steps, wanted = self.steps
        if self.regions:
            compute = partial(_computed, training, own)
            return by_regions(self, inputs, training, partial(_draw, own, inputs), compute)
        values = {0: inputs}
        for step in steps:
            read = [values[i] for i in step.inputs]
            values[step.output] = _computed(training, own, step.layer, read)
            for i in step.last:
                del values[i]
        return tree.pack_sequence_as(self._outputs_struct, [values[i] for i in wanted])

    def _apply(self, function: Any, recurse: bool = True) -> Any:
        for dtype in {parameter.dtype for parameter in self.parameters()}:
            cast = function(torch.empty(0, dtype=dtype)).dtype
            if cast != dtype:
                name = str(cast).removeprefix("torch.")
                raise InputError(
                    f"{self.name}: parameters cannot be made {name} after compilation, since some "
                    f"values have to stay in float32; use nfspec.compile(..., "
                    f'dtype="mixed_{name}" or "{name}"), or torch.autocast'
                )
        return super()._apply(function, recurse)


def _draw(own: bool, x: torch.Tensor, layer: Drop, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers of [0, 1): see `called`."""
    if own or torch.compiler.is_compiling():
        return torch.rand(shape, device=x.device)
    return layer.uniform(shape, x)


def _computed(training: bool, own: bool, layer: keras.layers.Layer, read: list[Any]) -> Any:
    """A layer's output, of what it reads in any dtype."""
    return called(layer, [_as(x, layer.compute_dtype) for x in read], training, own)


def called(layer: keras.layers.Layer, read: list[torch.Tensor], training: bool, own: bool) -> Any:
    """A layer's output; `own` in a loop of the user's own, where PyTorch's generator draws.

    Keras's seeds are not what such loops expect: `torch.manual_seed` does not set them,
    `torch.utils.checkpoint` does not replay them, and compilers would keep the first draw.
    """
    x = read[0] if len(read) == 1 else read
    drops = isinstance(layer, Drop)
    if _hooked(layer) or not isinstance(layer, NFLayer):
        return layer(x, training=training) if drops else layer(x)
    if not drops:
        return layer.call(x)
    if not training or layer.rate == 0.0:
        return x
    if own or torch.compiler.is_compiling():
        return layer.drop(x, torch.rand(layer.draws(x), device=read[0].device))
    return layer.call(x, training=True)


def _hooked(layer: Any) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def _as(x: Any, dtype: str) -> Any:
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else keras.ops.cast(x, dtype)
