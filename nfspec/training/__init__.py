"""A training from its recipe to its plots, and the answers of what was trained, as far as no
framework is needed.

It imports every room of the core; `runs` and `opening` open `backends` when a network is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("options", "runs", "session")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
