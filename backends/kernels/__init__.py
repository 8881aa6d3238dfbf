"""The arithmetic that layers and optimisers share, one file for each framework.

Every file has the kernels of `Kernels`, and `plain` has them in Keras's own operations: a kernel
that is not in `plain` by another name is there because `benchmarks/kernels` shows what it gains,
and its `plain` twin is what it must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from nfspec.backends.kernels import plain as plain_twins
from nfspec.errors import BackendError
from nfspec.plan.clipping import ClipRule


class Kernels(Protocol):
    """The kernels, which the module of each framework has; `plain` says what each computes."""

    def activate(self, kind: str, slope: float) -> Callable[[Any], Any]:
        """An activation by name, without gamma."""

    def average_pool(
        self, x: Any, window: int, strides: int, padding: str, data_format: str
    ) -> Any:
        """Means over windows, without padding."""

    def assign_all(
        self, optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], values: Sequence[Any]
    ) -> None:
        """Variables of an optimizer set to tensors."""

    def average_all(
        self,
        optimizer: keras.optimizers.Optimizer,
        averages: Sequence[Any],
        variables: Sequence[Any],
        decay: Any,
    ) -> None:
        """A step of moving averages."""

    def clip_all(
        self, gradients: Sequence[Any], parameters: Sequence[Any], rules: Sequence[ClipRule]
    ) -> tuple[list[Any], list[Any]]:
        """Gradients clipped by the units of their parameters, and the clip fractions."""

    def convolve(
        self,
        x: Any,
        kernel: Any,
        bias: Any,
        strides: int,
        padding: str,
        data_format: str,
        dilation: int,
    ) -> Any:
        """A conv with bias."""

    def convolve_activated(
        self,
        x: Any,
        kernel: Any,
        bias: Any,
        strides: int,
        padding: str,
        data_format: str,
        dilation: int,
        kind: str,
        slope: float,
    ) -> Any:
        """The same and an activation, for inference."""

    def dense(self, x: Any, kernel: Any, bias: Any) -> Any:
        """(N, I) by (I, O), with bias."""

    def gated(self, x: Any, gate: Any) -> Any:
        """`x · gate`."""

    def momentum_steps(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[Any],
        buffers: Sequence[Any],
        gradients: Sequence[Any],
        decays: Sequence[float],
        rate: Any,
        momentum: float,
        nesterov: bool,
    ) -> None:
        """SGD's step of some variables."""

    def scale_add(self, branch: Any, scale: Any, shortcut: Any) -> Any:
        """`scale · branch + shortcut`."""

    def start_averages(
        self,
        optimizer: keras.optimizers.Optimizer,
        averages: Sequence[Any],
        variables: Sequence[Any],
        first: Any,
    ) -> None:
        """The averages of a first step."""

    def standardise(
        self, kernel: Any, gain: Any, *, eps: float, eps_rule: str, ddof: int, gamma: float
    ) -> Any:
        """The kernel of a WS conv."""

    def uniform(self, shape: Sequence[Any], seeds: Any, x: Any) -> Any:
        """Random numbers by which is decided what is dropped."""


def kernels(plain: bool) -> Kernels:
    """The plain twins, or the kernels of the framework that Keras runs on."""
    return _PLAIN if plain else _FAST


def zeros(shape: Any, dtype: Any = None) -> Any:
    """Zeros to initialise optimiser state. NumPy makes them: JAX would compile a program for each
    shape."""
    return keras.ops.convert_to_tensor(np.zeros(shape, dtype))


def _of_the_framework() -> Kernels:
    match keras.backend.backend():
        case "jax":
            from nfspec.backends.kernels import jax

            return jax
        case "tensorflow":
            from nfspec.backends.kernels import tensorflow

            return tensorflow
        case "torch":
            from nfspec.backends.kernels import torch

            return torch
        case other:
            raise BackendError(f"no kernels for {other}")


# Looked up once: PyTorch's compiler stops at an import.
_PLAIN: Kernels = plain_twins
_FAST: Kernels = _of_the_framework()
