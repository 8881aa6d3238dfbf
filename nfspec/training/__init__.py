"""A training from its recipe to its plots, as far as no framework is needed.

It imports every room of the core; `runs` opens `backends` when Keras objects are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("options", "runs", "session")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
