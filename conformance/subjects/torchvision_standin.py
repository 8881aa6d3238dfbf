"""timm where torchvision is not installed: import `timm` from here, or after this.

timm takes many names from torchvision when it is imported (transforms, data sets, detection layers)
and needs none of them to build a network. Here each such name is an empty class, and the stand-in
is gone once timm is imported, so that nothing else takes it for torchvision.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "torchvision"


class _Placeholder(type):
    """The type of the empty classes; each of their attributes is a text, as an enumeration's."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        placeholder = _Placeholder(name, (), {})
        setattr(self, name, placeholder)
        return placeholder


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = fullname.partition(".")[0] == NAME
        return ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: the module makes an attribute when it is asked for."""


@contextmanager
def _standin() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[name]


def _import_timm() -> ModuleType:
    """Import timm, with the real torchvision if there is one."""
    try:
        importlib.import_module(NAME)
    except (ImportError, RuntimeError):  # none, or one built for another torch
        with _standin():
            return importlib.import_module("timm")
    return importlib.import_module("timm")


timm = _import_timm()
