"""Arrays of other libraries as float32 NumPy arrays, never with a changed value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.weights.checking import (
    Ends,
    Float32,
    Header,
    Shape,
    header,
    native,
    own_shapes_of,
    require,
)

WIDENED = ("bfloat16", "float16", "float64")
HALVES = ("torch.bfloat16", "torch.float16")  # every value of theirs is one of float32's
# Errors that tensors of other libraries raise if NumPy cannot hold their values.
REFUSED = (AttributeError, RuntimeError, TypeError, ValueError)


def offered(value: Any) -> Header | str:
    """Shape and dtype that a tensor claims, without converting it; or why it is not a tensor."""
    if isinstance(value, np.ndarray | np.generic):
        return header(value)
    # Look at the type: an object from a pickle may have attributes of its own.
    if not hasattr(type(value), "detach") and not hasattr(type(value), "__array__"):
        return f"{type(value).__name__}, expected a tensor"
    if hasattr(type(value), "get_mask"):  # torch.masked's
        return f"{type(value).__name__}, whose mask would be lost; fill it with to_tensor(value)"
    try:
        dtype = getattr(value.dtype, "name", str(value.dtype))
        return Header(tuple(int(side) for side in value.shape), dtype.removeprefix("torch."))
    except REFUSED:
        return f"{type(value).__name__} without a shape and a dtype, expected a tensor"


def _numpy(value: Any) -> NDArray[Any]:
    if hasattr(type(value), "detach"):  # a torch tensor, told without importing torch
        tensor = value.float() if str(value.dtype) in HALVES else value
        return np.asarray(tensor.numpy(force=True))
    return native(np.asarray(value))


def as_float32(value: Any) -> NDArray[Any] | str:
    """A NumPy array, torch tensor or jax array as NumPy array, in float32 if no value changes.

    Returns:
        The array, or why there is none.
    """
    claimed = offered(value)
    if isinstance(claimed, str):
        return claimed
    try:
        array = _numpy(value)
        if claimed.dtype not in WIDENED:
            return array
        with np.errstate(over="ignore", under="ignore"):
            narrow = array.astype(np.float32, copy=False)
        changed = (narrow != array) & ~np.isnan(array)
    except REFUSED:  # sparse, quantised, float8, deleted, on the meta device
        return f"{type(value).__name__} of {claimed.dtype} that NumPy cannot hold"
    except MemoryError:
        return f"{claimed.dtype} of shape {claimed.shape}, for which memory does not suffice"
    if changed.any():
        return f"{array.dtype} that float32 cannot hold, such as {array[changed].flat[0]!s}"
    return narrow


def converted(
    values: Mapping[str, Any],
    expected: Mapping[str, Shape],
    network: str,
    source: str,
    ends: Ends,
    *,
    own_shapes: bool,
    widen: Collection[str] = WIDENED,
) -> dict[str, NDArray[Any]]:
    """Convert the expected tensors to float32, after all names and shapes have been compared.

    Args:
        values: Name to tensor.
        expected: Name to shape.
        network: The network's name, for messages.
        source: The file's name, put before messages.
        ends: The tensors that depend on the number of classes or of input channels.
        own_shapes: Take any number of classes and of input channels, and no classifier, too.
        widen: Dtypes that are converted to float32, which has to hold all their values.

    Returns:
        The arrays in the order of `expected`; they may share memory with `values`.

    Raises:
        NoClassifier: Only the classifier is missing.
        WeightError: Names all that is wrong with the tensors.
    """
    headers = {name: offered(value) for name, value in values.items()}
    widened = {
        name: Header(claimed.shape, "float32")
        if isinstance(claimed, Header) and claimed.dtype in widen
        else claimed
        for name, claimed in headers.items()
    }
    if own_shapes:
        expected = own_shapes_of(expected, widened, ends)
    require(expected, widened, network, source, ends)
    arrays = {name: as_float32(values[name]) for name in expected}
    read = {n: a if isinstance(a, str) else Header(a.shape, "float32") for n, a in arrays.items()}
    require(expected, read, network, source)
    return {name: np.asarray(array) for name, array in arrays.items()}


def owned(array: NDArray[Any]) -> Float32:
    """A copy in float32 and C order that shares no memory, of the same shape, () included."""
    return np.array(array, dtype=np.float32, order="C")
