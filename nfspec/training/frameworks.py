"""The framework of a training or an evaluation, started in this process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from nfspec.compilation import select
from nfspec.files import cache_folder

KEEPS = (0, 10)  # the oldest version of JAX that was seen to read its programs as it wrote them
MOST_BYTES = 2 * 2**30  # of the programs that are kept; those used longest ago go first


def start(backend: str) -> None:
    """Make Keras run on a backend in this process, with Keras's own settings.

    The user's keras.json may say other dtypes, layouts and epsilons, or be damaged. Keras reads it
    when it is imported. Workers of `conform` and `compare` are started without it, too.

    Raises:
        BackendError: As `nfspec.compilation.select`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks on the machine
    if backend == "jax":
        _keep_programs()
    users = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix="nfspec-") as home:
        os.environ["KERAS_HOME"] = home
        try:
            select(backend)
        finally:
            del os.environ["KERAS_HOME"]
            if users is not None:
                os.environ["KERAS_HOME"] = users


def _keep_programs() -> None:
    """Let JAX keep the programs that it compiles in the user's cache, for the next command.

    `nfspec --no-cache`, and JAX's own variables, say otherwise. JAX bounds the folder with the
    package filelock; without it, nothing is kept.
    """
    absent = any(importlib.util.find_spec(name) is None for name in ("jax", "filelock"))
    if "jax" in sys.modules or absent or _too_old():
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder("jax") / _processor()))
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))


def _too_old() -> bool:
    """True for versions of JAX whose kept programs for CPUs compute other numbers, or end the
    process: 0.5 does (docs/versions.md)."""
    major, minor, *_ = version("jax").split(".")
    return (int(major), int(minor)) < KEEPS


def _processor() -> str:
    """A name for this kind of processor: XLA's programs for CPUs use what it has, and a home may be
    shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    kind = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
