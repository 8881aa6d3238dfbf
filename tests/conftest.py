"""Keras starts quickly, and XLA compiles quickly, in all tests and in what they start."""

import os
from pathlib import Path

from quick_keras import sitecustomize  # noqa: F401  (it acts as it is imported)
from quick_xla import XLA_FLAGS

FOLDER = str(Path(__file__).with_name("quick_keras"))


def pytest_configure(config):
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if FOLDER not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, *path]))
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # nothing in the user's cache
    # Before any test, or module of tests, starts JAX. A framework's slow tests compile as users do,
    # and so does the conformance kit: see conformance/conftest.py.
    if config.option.markexpr != "slow" or "KERAS_BACKEND" not in os.environ:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}".strip()
