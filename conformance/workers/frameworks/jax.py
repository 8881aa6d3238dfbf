"""JAX, jitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfspec.errors import BackendError

PRECISIONS = {"f32": "highest", "tf32": "tensorfloat32", "bf16": "highest", "f16": "highest"}


def set_mode(mode: str) -> None:
    """JAX's default on TPUs rounds the operands of products to bfloat16, on GPUs to TF32."""
    device()  # before a subject uses one
    if mode == "tf32" and jax.default_backend() != "gpu":
        raise BackendError(f"jax: {jax.default_backend()} has no TF32")
    jax.config.update("jax_default_matmul_precision", PRECISIONS[mode])


def switches() -> dict[str, str]:
    return {
        "jax_default_matmul_precision": str(jax.config.jax_default_matmul_precision),
        "jax_enable_x64": str(jax.config.jax_enable_x64),
        "platform": jax.default_backend(),
    }


def device() -> str:
    """The name of the device.

    Raises:
        BackendError: There is none of the platforms that JAX may use.
    """
    try:
        return jax.devices()[0].device_kind
    except (RuntimeError, AssertionError):  # the latter where a plugin of the platform is absent
        wanted = str(jax.config.jax_platforms)
        name = {"cuda": "GPU"}.get(wanted, wanted.upper())
        raise BackendError(f"jax: sees no {name}: no device of its platform {wanted}") from None


def _tensors(arrays: Any) -> Any:
    """Arrays on the device. `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(arrays)


def array(tensor: Any) -> Any:
    """A tensor as a NumPy array, narrow floats as float32."""
    return np.asarray(tensor.astype(jnp.float32) if tensor.dtype.itemsize < 4 else tensor)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    jitted = jax.jit(function)
    return lambda *arrays: jax.tree.map(array, jitted(*_tensors(arrays)))


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    @jax.jit  # type: ignore[untyped-decorator]
    def vjp(dy: Any, *arrays: Any) -> Any:
        y, pullback = jax.vjp(function, *arrays)
        return pullback(dy.astype(y.dtype))

    return lambda *arrays: jax.tree.map(array, vjp(*_tensors(arrays)))
