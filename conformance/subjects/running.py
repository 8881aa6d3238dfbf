"""Training and changed weights of nfspec's models, in the ways of each framework's users."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from nfspec.backends.running import forward_function
from nfspec.conformance.cases.case import Arrays

Forward = Callable[[Any], dict[str, np.ndarray[Any, Any]]]


def _arrays(taps: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {tap: ops.convert_to_numpy(value) for tap, value in taps.items()}


def trained_ways(model: keras.Model) -> dict[str, Forward]:
    """Forward passes of a model with taps in training: as a step does it, and, on PyTorch, after
    `train()`."""
    ways = {"training": forward_function(model, training=True)}
    if keras.backend.backend() != "torch":
        return ways

    def mode(x: Any) -> Any:
        model.train()
        try:
            return _arrays(model(ops.convert_to_tensor(x)))
        finally:
            model.eval()

    return {**ways, "mode": mode}


def changes(model: keras.Model) -> dict[str, Callable[[Arrays], None]]:
    """Functions that give a model other weights, by canonical name, each in a way of its own."""
    variables = {v.canonical: v for v in model.trainable_variables}

    def assign(params: Arrays) -> None:
        for name, variable in variables.items():
            variable.assign(params[name])

    def set_weights(params: Arrays) -> None:
        model.set_weights([params[v.canonical] for v in model.weights])

    def load_weights(params: Arrays) -> None:
        before = [np.array(ops.convert_to_numpy(v)) for v in model.weights]
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "model.weights.h5"))
            set_weights(params)
            model.save_weights(path)
            model.set_weights(before)
            model.load_weights(path)

    def optimizer(params: Arrays) -> None:
        slopes = [ops.subtract(v, params[v.canonical]) for v in variables.values()]
        keras.optimizers.SGD(1.0).apply(slopes, list(variables.values()))

    of_keras: dict[str, Callable[[Arrays], None]] = {
        "assign": assign,
        "set_weights": set_weights,
        "load_weights": load_weights,
        "optimizer": optimizer,
    }
    return of_keras | _torch_changes(model) if keras.backend.backend() == "torch" else of_keras


def _torch_changes(model: Any) -> dict[str, Callable[[Arrays], None]]:
    import torch

    def tensors(params: Arrays) -> dict[str, Any]:
        return {name: ops.convert_to_tensor(value) for name, value in params.items()}

    def in_place(params: Arrays) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors(params)[name])

    def data(params: Arrays) -> None:
        for name, parameter in model.named_parameters():
            # Twice: the second tensor may get the memory of the one that the first replaced.
            parameter.data = torch.zeros_like(parameter)
            parameter.data = torch.empty_like(parameter).copy_(tensors(params)[name])

    def optimizer(params: Arrays) -> None:
        named = dict(model.named_parameters())
        for name, parameter in named.items():
            parameter.grad = parameter.detach() - tensors(params)[name]
        torch.optim.SGD(named.values(), lr=1.0).step()
        model.zero_grad()

    return {
        "load_state_dict": lambda params: model.load_state_dict(tensors(params)),
        "in place": in_place,
        "data": data,
        "torch optimizer": optimizer,
    }
