"""The Plan as Keras 3 layers. Importing a module of this package imports Keras and a framework.

It imports the core (`nfspec`) without the command line.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("callbacks", "jax", "preprocessing", "register", "tensorflow", "torch")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
