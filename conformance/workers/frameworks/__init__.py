"""What the kit needs of a framework: modes, and functions of NumPy arrays. One file each, with the
same names.

`set_mode(mode)` sets the switches of a mode, or raises BackendError where the device has no such
mode; `switches()` reads them back; `device()` names the device. `compiled(function)` takes a
function of the framework's tensors (arrays, or dicts of arrays, in; a tensor or a dict of tensors
out) and makes one of NumPy arrays; `gradient(function)` makes one that takes dy first and returns
the gradient of Σ dy·y by each argument.
"""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import version
from typing import Any

from nfspec.errors import BackendError

Framework = Any  # one of the modules in this folder


def load(name: str) -> Framework:
    """The module of a framework.

    Raises:
        BackendError: There is none of that name.
    """
    if name not in ("jax", "torch", "tensorflow"):
        raise BackendError(f'no framework "{name}"; expected jax, torch or tensorflow')
    return importlib.import_module(f"nfspec.conformance.workers.frameworks.{name}")


def facts(name: str, package: str = "") -> dict[str, str]:
    """Versions and device of this process.

    Args:
        name: Name of the framework.
        package: Package that is tested, if it is not nfspec: `version` is then of that.
    """
    return {
        "backend": name,
        "version": version(package or name),
        **({"framework_version": version(name)} if package else {}),
        "keras": version("keras"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "device": load(name).device(),
    }
