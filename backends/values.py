"""The values of variables as arrays, wherever they are."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def array_of(variable: Any) -> NDArray[Any]:
    """The values of a variable. Where it is in parts over processes of PyTorch or JAX, all
    processes have to read it, and each gets the whole; one of them alone may read what is whole."""
    value: Any = getattr(variable, "value", None)
    whole = variable
    if hasattr(value, "full_tensor"):
        whole = value.full_tensor()
    elif not getattr(value, "is_fully_addressable", True) and not value.is_fully_replicated:
        from jax.experimental.multihost_utils import process_allgather

        whole = process_allgather(value, tiled=True)
    return np.asarray(keras.ops.convert_to_numpy(whole))
