"""Keras starts quickly in all tests, and in the processes that they start."""

import os
from pathlib import Path

import pytest

from quick_keras import sitecustomize  # noqa: F401  (it acts as it is imported)
from quick_xla import XLA_FLAGS

FOLDER = str(Path(__file__).with_name("quick_keras"))


def pytest_configure():
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if FOLDER not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, *path]))


@pytest.fixture(scope="session")
def quick_jax():
    """JAX that compiles in a third of the time, unless it has been started before."""
    import jax

    before = os.environ.get("XLA_FLAGS")
    flags = [before or "", XLA_FLAGS, "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    jax.devices()  # reads them
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before
