"""The kernels for PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.plain import gated
from nfspec.backends.kernels.torch_steps import (
    assign_all,
    average_all,
    clip_all,
    momentum_steps,
    start_averages,
    uniform,
)
from nfspec.backends.kernels.torch_tracing import eager_on_cpu, watched
from nfspec.plan.activations import DEEPMIND_SLOPE

__all__ = [
    "activate",
    "assign_all",
    "average_all",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "gated",
    "momentum_steps",
    "scale_add",
    "standardise",
    "start_averages",
    "uniform",
]

# tanh GELU is x · sigmoid(LINEAR · x + CUBIC · x³), since (1 + tanh u) / 2 = sigmoid(2u).
LINEAR = 2.0 * math.sqrt(2.0 / math.pi)
CUBIC = LINEAR * 0.044715
LARGE = 1e30
FAR = 20.0  # beyond it the tanh is 1 or -1 in every dtype

# What oneDNN can do to a conv's output before it leaves the registers: name and algorithm.
POST_OPS = {
    "identity": ("none", ""),
    "gelu_erf": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}


def _onednn(x: torch.Tensor) -> bool:
    return eager_on_cpu(x) and torch.backends.mkldnn.is_available()


def _gate(x: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """sigmoid(LINEAR · x + CUBIC · x³)."""
    return (square * CUBIC).add_(LINEAR).mul_(x).sigmoid_()


class _TanhGELU(torch.autograd.Function):  # type: ignore[misc]  # no types
    """PyTorch's own takes twice as long on CPUs, for the tanh. Keeps the slope, and not x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        square = x * x
        gate = _gate(x, square)
        # Where x³ overflows the gate is 0 or 1 and does not change; infinity times 0 is no number.
        slope = square.mul_(3.0 * CUBIC).add_(LINEAR).mul_(x).clamp_(-LARGE, LARGE)
        torch.ops.aten.sigmoid_backward(slope, gate, grad_input=slope)
        ctx.save_for_backward(slope.add_(gate))
        return gate.mul_(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (slope,) = ctx.saved_tensors
        return dy * slope


class _BoundedTanhGELU(torch.autograd.Function):  # type: ignore[misc]  # no types
    """PyTorch's GELU with a tanh, with a derivative that is right for every x.

    PyTorch's own derivative is infinity times 0 if x³ overflows, for |x| of 1.8e19 and more. It is
    taken at x clipped to ±20 instead: beyond that it is 0 or 1 in every dtype.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return functional.gelu(x, approximate="tanh")

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.gelu_backward(dy, x.clamp(-FAR, FAR), approximate="tanh")


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    fast = x.dtype is torch.float32 and eager_on_cpu(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _gate(x, x * x).mul_(x) if fast else functional.gelu(x, approximate="tanh")
    if fast:
        return _TanhGELU.apply(x)
    if not watched(x):
        return _BoundedTanhGELU.apply(x)
    # An exported network is for inference, without slopes; 2.6 does not say, and bool() is False.
    if torch.jit.is_tracing() or getattr(torch.compiler, "is_exporting", bool)():
        return functional.gelu(x, approximate="tanh")
    near = functional.gelu(x.clamp(-FAR, FAR), approximate="tanh")
    return torch.where(x.abs() > FAR, functional.relu(x), near)


def activate(kind: str, slope: float = DEEPMIND_SLOPE) -> Callable[[Any], Any]:
    return _gelu_tanh if kind == "gelu_tanh" else plain.activate(kind, slope)


class _Standardise(torch.autograd.Function):  # type: ignore[misc]  # no types
    """Standardise a float32 kernel (N, O) and return it as rows (O, N).

    The arithmetic is explained in `plain.py`. In rows the weights of an output are next to each
    other, which makes sums and convs fast. To transpose a matrix takes a tenth of the time of a
    `permute` of the four axes.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: torch.Tensor, gain: torch.Tensor, eps: float, eps_rule: str, ddof: int
    ) -> torch.Tensor:
        n = kernel.shape[0]
        centred = kernel.t().clone(memory_format=torch.contiguous_format)
        mean = centred.mean(1, keepdim=True)
        centred.sub_(mean)
        rest = centred.mean(1, keepdim=True)
        centred.sub_(rest)
        variance = torch.linalg.vector_norm(centred, dim=1, keepdim=True).square_().div_(n - ddof)
        # `slope` is the derivative of scale by variance, times 2 / (n - ddof).
        if eps_rule == "max":
            scale = torch.rsqrt((n * variance).clamp_(min=eps))
            slope = torch.where(n * variance > eps, scale**3, 0.0).mul_(-n / (n - ddof))
        elif eps_rule == "add":
            scale = torch.rsqrt(n * (variance + eps))
            slope = scale**3 * (-n / (n - ddof))
        else:
            std = variance.sqrt()
            scale = n**-0.5 / (std + eps)
            slope = torch.where(std > 0.0, scale.square() / std, 0.0).mul_(-(n**0.5) / (n - ddof))
        ctx.save_for_backward(kernel, gain, mean, rest, scale, slope)
        return centred.mul_(scale * gain[:, None])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        kernel, gain, mean, rest, scale, slope = ctx.saved_tensors
        centred = kernel.t().clone(memory_format=torch.contiguous_format).sub_(mean).sub_(rest)
        drows = dy * centred
        along = drows.sum(1, keepdim=True)
        gain = gain[:, None]
        torch.sub(dy, dy.mean(1, keepdim=True), out=drows).mul_(scale * gain)
        drows.add_(centred.mul_(along * slope * gain))
        return drows.t().contiguous(), (along * scale)[:, 0], None, None, None


def standardise(
    kernel: Any, gain: Any, *, eps: float, eps_rule: str, ddof: int, gamma: float
) -> Any:
    fast = kernel.dtype is torch.float32 and eager_on_cpu(kernel) and eps_rule != "none"
    if not fast:
        return plain.standardise(kernel, gain, eps=eps, eps_rule=eps_rule, ddof=ddof, gamma=gamma)
    *fan_in, filters = kernel.shape
    rows = _Standardise.apply(kernel.reshape(-1, filters), gain * gamma, eps, eps_rule, ddof)
    return rows.view(filters, *fan_in).permute(1, 2, 3, 0)


def _padded(x: Any, kernel: int, strides: int, padding: str) -> tuple[Any, list[int]]:
    """An NCHW image, and what the conv is to pad it with on both ends of each side."""
    if padding == "valid":
        return x, [0, 0]
    if padding == "symmetric":
        return x, [plain.symmetric_pad(kernel, strides)] * 2
    if strides == 1 and kernel % 2:
        return x, [kernel // 2] * 2
    return plain.pad_image(x, kernel, strides, padding, "channels_first", 0.0)[0], [0, 0]


def _conv(x: Any, kernel: Any, conv: Any, how: tuple[int, str, str, int]) -> Any:
    """`conv(x, weight, stride, padding, dilation, groups)` in PyTorch's own layouts; `how` is
    strides, padding, data_format and dilation."""
    strides, padding, data_format, dilation = how
    last = data_format == "channels_last"
    x = x.permute(0, 3, 1, 2) if last else x
    x, pad = _padded(x, plain.extent(kernel, dilation), strides, padding)
    groups = x.shape[1] // kernel.shape[2]
    steps = [strides, strides], pad, [dilation, dilation]
    y = conv(x, kernel.permute(3, 2, 0, 1), *steps, groups)
    return y.permute(0, 2, 3, 1) if last else y


def convolve(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: int,
    padding: str,
    data_format: str,
    dilation: int,
) -> Any:
    """PyTorch's conv, which adds the bias itself."""
    kernel, bias = kernel.to(x.dtype), bias.to(x.dtype)

    def conv(x: Any, weight: Any, stride: Any, pad: Any, apart: Any, groups: int) -> Any:
        return functional.conv2d(x, weight, bias, stride, pad, apart, groups)

    return _conv(x, kernel, conv, (strides, padding, data_format, dilation))


def convolve_activated(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: int,
    padding: str,
    data_format: str,
    dilation: int,
    kind: str,
    slope: float,
) -> Any:
    """By oneDNN with a kernel in its own layout and the activation within, without gradients."""
    fits = kind in POST_OPS and x.dtype in (torch.float32, torch.bfloat16)
    if torch.is_grad_enabled() or not fits or not _onednn(x):
        y = convolve(x, kernel, bias, strides, padding, data_format, dilation)
        return activate(kind, slope)(y)
    name, algorithm = POST_OPS[kind]

    def conv(x: Any, weight: Any, stride: Any, pad: Any, apart: Any, groups: int) -> Any:
        packed = _packed(kernel, weight, (pad, stride, apart, groups, x.shape))
        return torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, pad, stride, apart, groups, name, [], algorithm
        )

    return _conv(x, kernel, conv, (strides, padding, data_format, dilation))


_packs: Any = WeakTensorKeyDictionary()


def _packed(kernel: Any, weight: Any, how: tuple[Any, ...]) -> Any:
    """A weight in the layout that oneDNN wants for images of a shape, which is no good for others:
    kept with the parameter until that is changed, or another shape comes. `how` is padding, stride,
    dilation, groups and that shape."""
    if not isinstance(kernel, torch.nn.Parameter):
        return weight
    version = (kernel._version, kernel.data_ptr(), how)
    entry = _packs.get(kernel)
    if entry is None or entry[0] != version:
        pack = torch._C._nn.mkldnn_reorder_conv2d_weight
        packed = pack(weight.detach().contiguous().to_mkldnn(), *how)
        # With its storage, so that no other tensor comes to lie where this one lies.
        entry = _packs[kernel] = (version, packed, kernel.untyped_storage())
    return entry[1]


def dense(x: Any, kernel: Any, bias: Any) -> Any:
    """By oneDNN without gradients: half the time of PyTorch's own for a few images."""
    if torch.is_grad_enabled() or x.dtype is not torch.float32 or not _onednn(x):
        return functional.linear(x, kernel.to(x.dtype).t(), bias.to(x.dtype))
    return torch.ops.mkldnn._linear_pointwise(x, kernel.t(), bias, "none", [], "")


class _ScaleAdd(torch.autograd.Function):  # type: ignore[misc]  # no types
    """`addcmul`, whose own derivative makes three tensors of the images' size and not one."""

    @staticmethod
    def forward(ctx: Any, branch: Any, scale: Any, shortcut: Any) -> torch.Tensor:
        ctx.save_for_backward(branch, scale)
        return torch.addcmul(shortcut, branch, scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        branch, scale = ctx.saved_tensors
        product = dy * branch
        dscale = product.sum_to_size(scale.shape)
        # Images of one pixel: nothing is summed, and the sum is the product itself.
        out = None if dscale.shape == product.shape else product
        return torch.mul(dy, scale, out=out), dscale, dy


def scale_add(branch: Any, scale: Any, shortcut: Any) -> Any:
    if isinstance(scale, (int, float)):  # `torch.compile` of 2.9 cannot trace a union of types
        return torch.add(shortcut, branch, alpha=scale)
    scale = scale.to(branch.dtype)
    trained = torch.is_grad_enabled() and branch.requires_grad and scale.requires_grad
    if trained and branch.dtype is torch.float32 and eager_on_cpu(branch):
        return _ScaleAdd.apply(branch, scale, shortcut)
    return torch.addcmul(shortcut, branch, scale)


def average_pool(x: Any, window: int, strides: int, padding: str, data_format: str) -> Any:
    """Without the copies that Keras's makes of images in channels_last.

    Not for exporters: how many windows `ceil_mode` has is a condition on the sides.
    """
    if padding != "same" or not window == strides == 2 or watched(x):
        return plain.average_pool(x, window, strides, padding, data_format)
    last = data_format == "channels_last"
    # A window that reaches beyond an odd side is divided by what it has within.
    y = functional.avg_pool2d(x.permute(0, 3, 1, 2) if last else x, 2, ceil_mode=True)
    return y.permute(0, 2, 3, 1) if last else y
