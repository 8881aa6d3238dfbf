"""timm where torchvision is not installed: import `timm` from here, before anything else does.

The stand-in for torchvision is on the path only while timm is imported, so that nothing else takes
it for torchvision. A process of its own, such as a worker's, has it by `PYTHONPATH = FOLDER`.
"""

import importlib
import sys
from pathlib import Path

FOLDER = str(Path(__file__).with_name("standins"))


def _import_timm():
    finders = [*sys.meta_path]
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
