"""Keras starts quickly in all tests, and in the processes that they start."""

import os
from pathlib import Path

from quick_keras import sitecustomize  # noqa: F401  (it acts as it is imported)

FOLDER = str(Path(__file__).with_name("quick_keras"))


def pytest_configure():
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if FOLDER not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, *path]))
