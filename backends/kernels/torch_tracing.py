"""Compilers, exporters and transforms that look on while PyTorch computes."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def watched(x: torch.Tensor) -> bool:
    """True if a compiler, an exporter or `torch.func` traces, and needs standard operators."""
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
        or type(x) not in (torch.Tensor, torch.nn.Parameter)
    )


def eager_on_cpu(x: torch.Tensor) -> bool:
    """True if a tensor is on a CPU, as when the kernels below were measured, and not watched."""
    return x.device.type == "cpu" and not watched(x)
