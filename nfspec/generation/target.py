"""A target: a framework that source is written for, and the way into its objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import BackendError, InputError, suggest

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """A folder of templates, and what is done with the file that they make.

    Attributes:
        name: The folder's name, as `nfspec generate --to` takes it.
        package: What the file imports.
        command: What installs it.
        summary: The kind of object that the file makes, and its layout, for help texts.
        make: A function of the imported file, the name of its class (`NFNet` and the like), the
            path of a file of weights or None, and options: the native object.
        logits: A function of a native object and images, (N, H, W, C): the logits in inference,
            (N, classes).
        params: A function of a native object: its parameters by canonical name, in nfspec's
            layouts (HWIO, IO), as arrays of any library. None where the object has none of its own.
        classes, channels: Names of the options for another number of classes and input channels.
    """

    name: str
    package: str
    command: str
    summary: str
    make: Callable[[ModuleType, str, str | None, Mapping[str, Any]], Any]
    logits: Callable[[Any, Images], Images]
    params: Callable[[Any], dict[str, Any]] | None = None
    classes: str = "classes"
    channels: str = "channels"

    def require(self) -> None:
        """Require the package that the file imports.

        Raises:
            BackendError: It is not installed.
        """
        try:
            import_module(self.package)
        except ImportError:
            raise BackendError(
                f"a network for {self.name} needs {self.package}, which is not installed; run: "
                f"{self.command}"
            ) from None


def require_options(made: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Require that a class or function takes such arguments.

    Raises:
        InputError: It does not; the message names those that it takes.
    """
    taken = inspect.signature(made).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for name in options.keys() - taken.keys():
        raise InputError(
            f"options: {made.__name__} takes {', '.join(taken)}; found {name}{suggest(name, taken)}"
        )
