"""These tests run once for each framework: KERAS_BACKEND=jax python -m pytest tests/backends."""

import gc
import os

import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "")

if BACKEND:
    # TensorFlow crashes when PyTorch is imported after it: keras/conftest.py does the same.
    import torch  # noqa: F401
else:
    collect_ignore_glob = ["test_*.py"]

if BACKEND in ("jax", "torch"):
    # Keras looks for TensorFlow's types in all that it saves, and imports TensorFlow for that if it
    # is installed: a tenth of PyTorch's run. Without it Keras is as on a machine that has none.
    from keras.src.utils import module_utils

    module_utils.tensorflow._available = False


@pytest.fixture(scope="session", autouse=True)
def _rare_collections():
    """Tracing makes many objects and little garbage, and Python would search all of a framework's
    objects for garbage again and again: a sixth of the time of a trace."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def _programs():
    """On JAX, forget the programs of each file: together they take gigabytes."""
    yield
    if BACKEND == "jax":
        import jax

        jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """On JAX, compile what many tests run once, through a cache that starts empty in each run.

    On CPUs, what JAX 0.5 reads from its cache is wrong where a program gives its arguments away.
    """
    if BACKEND == "jax":
        import jax

        if jax.__version_info__ < (0, 7):
            return
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_report_header() -> str:
    return f"nfspec backend: {BACKEND or 'none (tests/backends needs KERAS_BACKEND)'}"


@pytest.fixture
def backend() -> str:
    return BACKEND
