"""PyTorch, eager, on the device that Keras would use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nfspec.errors import BackendError


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def set_mode(mode: str) -> None:
    """By default cuDNN's convs round operands to TF32, and matrix products do not."""
    if mode == "tf32" and _device() == "cpu":
        raise BackendError("torch: cpu has no TF32")
    torch.backends.cudnn.allow_tf32 = mode == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"


def switches() -> dict[str, str]:
    return {
        "cudnn.allow_tf32": str(torch.backends.cudnn.allow_tf32),
        "cuda.matmul.allow_tf32": str(torch.backends.cuda.matmul.allow_tf32),
        "default_dtype": str(torch.get_default_dtype()),
    }


def device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _tensors(arrays: Any, differentiable: bool = False) -> Any:
    if isinstance(arrays, dict):
        return {name: _tensors(value, differentiable) for name, value in arrays.items()}
    tensor = torch.tensor(arrays, device=_device())
    return tensor.requires_grad_() if differentiable else tensor


def array(tensor: Any) -> Any:
    """A tensor, or a dict of tensors, as NumPy arrays, narrow floats as float32."""
    if isinstance(tensor, dict):
        return {name: array(value) for name, value in tensor.items()}
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.element_size() < 4 else tensor).numpy()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arrays: Any) -> Any:
        with torch.inference_mode():
            return array(function(*map(_tensors, arrays)))

    return call


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    def vjp(dy: Any, *arrays: Any) -> Any:
        leaves = [_tensors(value, differentiable=True) for value in arrays]
        y = function(*leaves)
        return tuple(map(array, torch.autograd.grad(y, leaves, _tensors(dy).to(y.dtype))))

    return vjp
