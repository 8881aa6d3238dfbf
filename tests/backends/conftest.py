"""These tests run once for each framework: KERAS_BACKEND=jax python -m pytest tests/backends."""

import os

import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "")

if BACKEND:
    # TensorFlow crashes when PyTorch is imported after it: keras/conftest.py does the same.
    import torch  # noqa: F401
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    return f"nfspec backend: {BACKEND or 'none (tests/backends needs KERAS_BACKEND)'}"


@pytest.fixture
def backend() -> str:
    return BACKEND
