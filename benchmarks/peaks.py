"""The peak rates of a device: a product of two large matrices, and a copy of a large array."""

from __future__ import annotations

import os
from typing import Any

from nfspec.benchmarks.device import placed
from nfspec.benchmarks.works import Setup, Work

WIDTHS = {"bf16": 2, "tf32": 4, "f32": 4}  # bytes of an element


def matmul(setup: Setup, side: int) -> Work:
    """A product of two matrices of `side` rows and columns, which does 2 · side³ operations."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        dtype = jax.numpy.bfloat16 if setup.narrow else jax.numpy.float32
        a = jax.random.normal(jax.random.key(0), (side, side), dtype)
        product = jax.jit(lambda a: a @ a)
        return lambda: product(a).block_until_ready()
    import torch

    torch.manual_seed(0)
    b = placed(torch.randn(side, side)).to(torch.bfloat16 if setup.narrow else torch.float32)
    out = torch.empty_like(b)
    return torch.inference_mode()(lambda: torch.matmul(b, b, out=out))


def copy(setup: Setup, size: int) -> Work:
    """A copy of `size` bytes, which are read and written."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        a: Any = jax.numpy.ones(size // 4, jax.numpy.float32)
        # A plain copy of an argument may be left out; a sum of each element may not.
        moved = jax.jit(lambda a: a + 1.0)
        return lambda: moved(a).block_until_ready()
    import torch

    b = placed(torch.ones(size // 4))
    out = torch.empty_like(b)
    return torch.inference_mode()(lambda: out.copy_(b))


MAKERS = {"matmul": matmul, "copy": copy}
