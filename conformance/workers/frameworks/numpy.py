"""NumPy: functions are called as they are, and state their own gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nfspec.conformance.subjects import NotOffered
from nfspec.errors import BackendError


def set_mode(mode: str) -> None:
    """NumPy has no switch: a subject rounds to a narrow mode by itself."""
    if mode == "tf32":
        raise BackendError("numpy: cpu has no TF32")


def switches() -> dict[str, str]:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"blas": f"{blas['name']} {blas['version']}"}


def device() -> str:
    return "cpu"


def _copies(arrays: Any) -> Any:
    """Copies, so that a subject that writes into its arguments does not change the next call's."""
    if isinstance(arrays, dict):
        return {name: np.array(value) for name, value in arrays.items()}
    return np.array(arrays)


def array(value: Any) -> Any:
    """An array, or a dict of arrays, narrow floats as float32."""
    if isinstance(value, dict):
        return {name: array(each) for name, each in value.items()}
    value = np.asarray(value)
    return value.astype(np.float32) if value.itemsize < 4 else value


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arrays: array(function(*map(_copies, arrays)))


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's own vector-Jacobian product.

    Raises:
        NotOffered: The function has none.
    """
    vjp = getattr(function, "vjp", None)
    if vjp is None:
        raise NotOffered("the function has no vjp (vector-Jacobian product), so no gradients")
    return lambda dy, *arrays: tuple(map(array, vjp(*map(_copies, (dy, *arrays)))))
