"""Images and parameters as the reference takes them: in float64, checked, nothing broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec.arguments import instance, shown
from nfspec.errors import InputError, WeightError
from nfspec.plan import Plan
from nfspec.plan.counting import shapes
from nfspec.plan.free_memory import require_free_memory_for_images
from nfspec.weights.checking import Found, Header, header, require
from nfspec.weights.checking import shapes as shapes_of

Array = NDArray[np.float64]


def array_of(value: Any, kinds: str = "f") -> NDArray[Any] | str:
    """A value as an array of its own dtype, or a text that says what was found in place of one.

    Args:
        value: An array, or a value that NumPy can convert to one.
        kinds: NumPy's letters for the kinds of numbers to take; floating ones if not given.
    """
    if isinstance(value, np.ndarray) and isinstance(refusal := header(value), str):
        return refusal
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors on other devices
        return f"{shown(value)} that makes no array"
    if array.dtype.kind not in kinds:
        return f"{array.dtype} of shape {array.shape}"
    return array


def float64(name: str, value: Any, expected: str, kinds: str = "f") -> Array:
    """Numbers as float64, of the kinds that `array_of` takes.

    Raises:
        InputError: Something else.
    """
    array = array_of(value, kinds)
    if isinstance(array, str):
        raise InputError(f"{name}: expected {expected}; found {array}")
    return array.astype(np.float64, copy=False)


def finite(name: str, array: Array) -> Array:
    """The array itself, if all its numbers are finite.

    Raises:
        InputError: A number in it is infinite or NaN.
    """
    if not (good := np.isfinite(array)).all():
        first = tuple(int(i) for i in np.argwhere(~good)[0])
        raise InputError(f"{name}: expected finite numbers; found {array[first]} at {first}")
    return array


def as_images(plan: Plan, x: ArrayLike) -> Array:
    """Images as float64.

    Raises:
        InputError: Not finite floating numbers of shape (N, H, W, plan.channels), N at least 1 and
            the sides large enough; or more than the memory takes.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    expected = f"an array of shape (N, H, W, {plan.channels})"
    image = float64("images", x, f"{expected} of floating numbers")
    if image.ndim != 4 or image.shape[3] != plan.channels:
        raise InputError(f"images: expected {expected}; found {image.shape}")
    if not len(image):
        raise InputError("images: expected at least one; found none")
    shapes(plan, *image.shape[1:3])  # refuses images that are too small
    require_free_memory_for_images(plan, image.shape)
    return finite("images", image)


def as_params(plan: Plan, params: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """A plan's parameters as float64, in its order.

    Raises:
        WeightError: As `checked_params`.
    """
    own = checked_params(plan, params)
    return {name: value.astype(np.float64, copy=False) for name, value in own.items()}


def checked_params(plan: Plan, params: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """A plan's parameters as arrays of their own floating dtypes, in its order.

    Raises:
        WeightError: Names each missing, misshapen, mistyped and extra one, the first 20 of them.
    """
    if not isinstance(params, Mapping):
        raise WeightError(f"params: expected a dict of arrays; found {shown(params)}")
    if strange := [name for name in params if not isinstance(name, str)]:
        raise WeightError(f"params: expected names that are text; found {shown(strange[0])}")
    arrays = {name: array_of(value) for name, value in params.items()}
    # Any floating dtype is taken: float64 is exact, and networks have float32.
    given: dict[str, Found] = {
        name: value if isinstance(value, str) else Header(value.shape, "float32")
        for name, value in arrays.items()
    }
    require(shapes_of(plan), given, plan.name)
    return {name: np.asarray(arrays[name]) for name in plan.parameters}
