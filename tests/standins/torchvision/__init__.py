"""A stand-in for torchvision, whose builds do not match every build of torch.

timm takes many names from torchvision when it is imported (transforms, data sets, detection layers)
and needs none of them to build a network. Here each such name is an empty class. Processes that use
timm have this folder's parent in PYTHONPATH; nothing that is installed knows of it.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Empty(type):
    """The type of the empty classes; each of their attributes is a text, as an enumeration's."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class Module(ModuleType):
    """A module that makes an attribute when it is asked for."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Empty(name, (), {})
        setattr(self, name, made)
        return made


class Finder(MetaPathFinder, Loader):
    """Finds every module below this one."""

    def find_spec(self, fullname, path, target=None):
        below = fullname.startswith(f"{__name__}.")
        return ModuleSpec(fullname, self, is_package=True) if below else None

    def create_module(self, spec):
        return Module(spec.name)

    def exec_module(self, module):
        """Run nothing."""


sys.meta_path.append(Finder())
sys.modules[__name__].__class__ = Module
