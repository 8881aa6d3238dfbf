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
    stored              a kernel as it is kept in memory
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras
import numpy as np

_plain = False


@contextlib.contextmanager
def only_plain() -> Iterator[None]:
    """A context in which layers and optimisers are made that use the plain twins."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def is_plain() -> bool:
    """Whether what is made now is to use the plain twins."""
    return _plain


def kernels(plain: bool) -> ModuleType:
    """The plain twins, or the kernels of the framework that Keras runs on."""
    return _PLAIN if plain else _FAST


def stored_zeros(plain: bool) -> Callable[..., Any]:
    """An initialiser of optimiser state, kept as the parameters are.

    Zeros are NumPy's: JAX would compile a program for each shape.
    """

    def initializer(shape: Any, dtype: Any = None) -> Any:
        return kernels(plain).stored(keras.ops.convert_to_tensor(np.zeros(shape, dtype)))

    return initializer


# Looked up once, and last since they import from here: PyTorch's compiler stops at an import.
_PLAIN = importlib.import_module(f"{__name__}.plain")
_FAST = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
