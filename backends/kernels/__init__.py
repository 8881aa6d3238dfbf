"""The arithmetic that layers and optimisers share, one file for each framework.

Every file has the same names, and `plain` has them in Keras's own operations: a kernel that is not
in `plain` by another name is there because `benchmarks/kernels` shows what it gains, and its
`plain` twin is what it must equal.

    activate            an activation by name, without gamma
    average_pool        means over windows, without padding
    clip_all            gradients by the units of their parameters
    convolve            a conv with bias
    convolve_activated  the same and an activation, for inference
    dense               (N, I) by (I, O), with bias
    momentum_steps      SGD's step of some variables
    scale_add           `scale · branch + shortcut`
    standardise         the kernel of a WS conv
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import keras
import numpy as np


def kernels(plain: bool) -> ModuleType:
    """The plain twins, or the kernels of the framework that Keras runs on."""
    return _PLAIN if plain else _FAST


def zeros(shape: Any, dtype: Any = None) -> Any:
    """Zeros to initialise optimiser state. NumPy makes them: JAX would compile a program for each
    shape."""
    return keras.ops.convert_to_tensor(np.zeros(shape, dtype))


# Looked up once, and last since they import from here: PyTorch's compiler stops at an import.
_PLAIN = importlib.import_module(f"{__name__}.plain")
_FAST = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
