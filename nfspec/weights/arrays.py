"""Arrays of other libraries as float32 NumPy arrays, never with a changed value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.weights.checking import Float32

HALVES = ("torch.bfloat16", "torch.float16")  # every value of theirs is one of float32's


def _numpy(value: Any) -> NDArray[Any] | str:
    try:
        # Of the type: what was read from a pickle may have attributes of its own.
        if hasattr(type(value), "detach"):  # a torch tensor, told without importing torch
            tensor = value.detach().cpu()
            return np.asarray((tensor.float() if str(tensor.dtype) in HALVES else tensor).numpy())
        if hasattr(type(value), "__array__"):
            return np.asarray(value)
    except (RuntimeError, TypeError):  # sparse, quantised, float8, deleted, on the meta device
        return f"{type(value).__name__} of {value.dtype} that NumPy cannot hold"
    return f"{type(value).__name__}, expected a tensor"


def as_float32(value: Any) -> NDArray[Any] | str:
    """A NumPy array, torch tensor or jax array as NumPy array, in float32 if no value changes.

    Returns:
        The array, of its own dtype if that is not a floating one; or what is wrong with the value.
    """
    array = _numpy(value)
    if isinstance(array, str) or not np.issubdtype(array.dtype, np.floating):
        return array
    if array.dtype == np.float32:
        return array
    with np.errstate(over="ignore", under="ignore"):
        converted = array.astype(np.float32)
    changed = (converted != array) & ~np.isnan(array)
    if changed.any():
        return f"{array.dtype} that float32 cannot hold, such as {array[changed].flat[0]!s}"
    return converted


def owned(array: NDArray[Any]) -> Float32:
    """A copy in float32 and C order that shares no memory, of the same shape, () included."""
    return np.array(array, dtype=np.float32, order="C")
