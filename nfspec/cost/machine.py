"""This machine: its processor, its versions, and its peak figures as NumPy measures them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PACKAGES = ("keras", "jax", "torch", "tensorflow", "timm", "optax", "numpy")


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _best(work: Callable[[], object], times: int = 5) -> float:
    """The shortest of a few runs, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def describe() -> dict[str, str | int]:
    """Name of the processor, number of cores, and versions of the packages."""
    facts: dict[str, str | int] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def sgemm() -> float:
    """Speed of a product of two 2048 x 2048 float32 matrices, GFLOP/s."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    return 2 * 2048**3 / _best(lambda: a @ a) / 1e9


def bandwidth() -> float:
    """Bandwidth of a copy of 256 MB, read and written, GB/s."""
    a = np.ones(2**26, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / _best(lambda: np.copyto(b, a)) / 1e9
