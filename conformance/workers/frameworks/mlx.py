"""MLX, lazily evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from nfspec.errors import BackendError


def set_mode(mode: str) -> None:
    """MLX has no switch: a subject rounds to a narrow mode by itself."""
    if mode == "tf32":
        raise BackendError(f"mlx: {device()} has no TF32")


def switches() -> dict[str, str]:
    return {"device": str(mx.default_device())}


def device() -> str:
    return "cpu" if mx.default_device().type == mx.DeviceType.cpu else "gpu"


def _tensors(arrays: Any) -> Any:
    if isinstance(arrays, dict):
        return {name: mx.array(value) for name, value in arrays.items()}
    return mx.array(arrays)


def array(tensor: Any) -> Any:
    """A tensor, or a dict of tensors, as NumPy arrays, narrow floats as float32."""
    if isinstance(tensor, dict):
        return {name: array(value) for name, value in tensor.items()}
    return np.array(tensor.astype(mx.float32) if tensor.itemsize < 4 else tensor)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arrays: array(function(*map(_tensors, arrays)))


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    def vjp(dy: Any, *arrays: Any) -> Any:
        leaves = list(map(_tensors, arrays))
        _, slopes = mx.vjp(function, leaves, [mx.array(dy)])
        return tuple(map(array, slopes))

    return vjp
