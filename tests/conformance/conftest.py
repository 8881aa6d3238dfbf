"""A process of PyTorch for all tests that ask one in float32."""

import pytest

from kept_process import Kept


@pytest.fixture(scope="session")
def torch_process():
    process = Kept("torch", "cpu", "f32")
    yield process
    process.end()
