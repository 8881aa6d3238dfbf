"""Frameworks, one file each, all with the same names: the modes, and functions of NumPy arrays.

`set_mode(mode)` sets the switches of a mode, or raises BackendError where the device has no such
mode; `switches()` reads them back; `device()` names the device. `compiled(function)` takes a
function of the framework's tensors (arrays, or dicts of arrays, in; a tensor or a dict of tensors
out) and makes one of NumPy arrays; `gradient(function)` makes the function's vector-Jacobian
product, which takes dy first and returns the gradient of Σ dy·y by each argument.
"""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import version
from types import ModuleType

from nfspec.compilation import BACKENDS, select


def load(name: str) -> ModuleType:
    """Import a framework's module, and Keras where Keras runs on the framework.

    Args:
        name: A name of `nfspec.conformance.subjects.FRAMEWORKS`.

    Raises:
        BackendError: The framework is not installed, or Keras already runs on another one.
    """
    if name in BACKENDS:
        select(name)
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
        **({"keras": version("keras")} if name in BACKENDS else {}),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "device": load(name).device(),
    }
