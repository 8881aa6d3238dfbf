"""The device of a contestant's process: what it is, and the memory that it has used."""

from __future__ import annotations

import contextlib
import importlib
import platform
import sys
from importlib.metadata import version
from typing import Any

# Parts of the messages by which frameworks say that a device has no memory left.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "MemoryError")


def _arithmetic(backend: str) -> Any:
    return importlib.import_module(f"nfspec.conformance.workers.frameworks.{backend}")


def set_precision(backend: str, precision: str) -> None:
    """Set the switches of a mode of arithmetic; none if it is empty.

    Raises:
        BackendError: The device has no such mode.
    """
    if precision:
        _arithmetic(backend).set_mode(precision)


def facts(backend: str) -> dict[str, str]:
    """Versions of this process, and its device: `cpu`, or the name of an accelerator.

    Raises:
        BackendError: The framework sees no device of the kind that it may use.
    """
    return {
        "python": platform.python_version(),
        backend: version(backend),
        "device": _arithmetic(backend).device(),
    }


def placed(x: Any) -> Any:
    """A module or tensor of PyTorch on the GPU, if there is one."""
    return x.to("cuda") if _cuda() else x


def narrowed(narrow: bool) -> Any:
    """PyTorch's automatic bfloat16, as its users train; nothing unless `narrow`."""
    import torch

    kind = "cuda" if _cuda() else "cpu"
    return torch.autocast(kind, torch.bfloat16) if narrow else contextlib.nullcontext()


def wait() -> None:
    """Wait until PyTorch's GPU has done what it was given; JAX's and TensorFlow's work waits."""
    if _cuda():
        _torch().cuda.synchronize()


def release() -> None:
    """Give back what is not in use, and let the peak start again where the framework can."""
    if _cuda():
        torch = _torch()
        torch.compiler.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> int | None:
    """Bytes of the device's memory that were in use at the peak; None where nothing tells.

    On JAX and TensorFlow it is the peak since the process began.
    """
    if _cuda():
        return int(_torch().cuda.max_memory_allocated())
    if "jax" in sys.modules:
        stats = sys.modules["jax"].local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        if tf.config.list_physical_devices("GPU"):
            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that a device has no memory left."""
    said = f"{type(error).__name__}: {error}"
    return any(words in said for words in OUT_OF_MEMORY)


def _torch() -> Any:
    return sys.modules.get("torch")


def _cuda() -> bool:
    torch = _torch()
    return torch is not None and bool(torch.cuda.is_available())
