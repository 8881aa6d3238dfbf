"""timm where torchvision is not installed: import `timm` from here, before anything else does.

The stand-in for torchvision is on the path only while timm is imported, so that nothing else takes
it for torchvision. A process of its own, such as a worker's, has it by `PYTHONPATH = FOLDER`.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

FOLDER = str(Path(__file__).with_name("standins"))


class _Empty:
    """A finder of timm's families of models but the one that is tested, which makes them empty: to
    import them all takes ten times as long."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, family = name.rpartition(".")
        others = package == "timm.models" and family != "nfnet" and not family.startswith("_")
        return ModuleSpec(name, _Empty) if others else None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        pass


def _import_timm():
    finders = [*sys.meta_path]
    sys.meta_path.insert(0, _Empty)
    sys.path.append(FOLDER)  # last: a real torchvision comes first
    try:
        return importlib.import_module("timm")
    finally:
        sys.path.remove(FOLDER)
        sys.meta_path[:] = finders
        if str(getattr(sys.modules.get("torchvision"), "__file__", "")).startswith(FOLDER):
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


timm = _import_timm()
