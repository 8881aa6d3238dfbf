"""A process of PyTorch for all tests that ask one in float32; workers that compile as users do."""

import os

import pytest

from kept_process import Kept
from quick_xla import XLA_FLAGS


@pytest.fixture(scope="package", autouse=True)
def _as_users_compile():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace(XLA_FLAGS, ""))
        yield


@pytest.fixture(scope="session")
def quick_jax():
    """JAX of this process compiles quickly: it reads the flags as it starts."""
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", XLA_FLAGS)
        jax.devices()


@pytest.fixture(scope="session")
def torch_process():
    process = Kept("torch", "cpu", "f32")
    yield process
    process.end()
