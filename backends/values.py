"""The values of variables as arrays, wherever they are."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def array_of(variable: Any) -> NDArray[Any]:
    """The values of a variable. Where it is in parts over processes of PyTorch, all processes have
    to read it, and each gets the whole."""
    value: Any = getattr(variable, "value", None)
    whole = value.full_tensor() if hasattr(value, "full_tensor") else variable
    return np.asarray(keras.ops.convert_to_numpy(whole))
