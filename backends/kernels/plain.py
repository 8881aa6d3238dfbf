"""The kernels in Keras's own operations: the same code on every framework.

Images are NHWC or NCHW as `data_format` says, kernels HWIO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from nfspec.backends.kernels.plain_steps import (
    assign_all,
    average_all,
    momentum_steps,
    start_averages,
)
from nfspec.backends.padding import same_pads
from nfspec.plan.activations import DEEPMIND_SLOPE, SELU_ALPHA, SELU_SCALE
from nfspec.plan.clipping import LEAST_GRADIENT_NORM, ClipRule

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


def gelu_tanh(x: Any) -> Any:
    """GELU by tanh (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2).

    Beyond 20 the tanh is 1 in every dtype. Without the clip the cube overflows there, at 148 in
    float16, and the derivative is infinity times 0.
    """
    near = ops.clip(x, -20.0, 20.0)
    inner = math.sqrt(2.0 / math.pi) * (near + 0.044715 * (near * near * near))
    return x * (0.5 * (1.0 + ops.tanh(inner)))


def soft_sign(x: Any) -> Any:
    """x / (1 + |x|) (Turian et al. 2009, section 3).

    In 16 bits it is computed in float32. The derivative divides by (1 + |x|)², which would
    overflow at 256 in float16 and leave 1/(1 + |x|). It overflows beyond 1e18 in float32, so x is
    clipped there.
    """
    wide = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
    return ops.cast(ops.softsign(ops.clip(ops.cast(x, wide), -1e18, 1e18)), x.dtype)


def selu(x: Any) -> Any:
    """SELU (Klambauer et al. 2017, arXiv:1706.02515, equation 2).

    TensorFlow's own takes its derivative from its output, which bfloat16 rounds to 0 between -2^-9
    and 0: there it has the slope of the other side.
    """
    positive = x > 0.0
    below = SELU_ALPHA * ops.expm1(ops.where(positive, ops.zeros_like(x), x))
    return SELU_SCALE * ops.where(positive, x, below)


def activate(kind: str, slope: float = DEEPMIND_SLOPE) -> Callable[[Any], Any]:
    """The function behind a spec's name of an activation, without gamma.

    Every argument is given: `keras.ops.gelu` and `keras.activations.gelu` have different defaults,
    and so have Keras's and JAX's `leaky_relu`.
    """
    functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda x: x,
        "celu": lambda x: ops.celu(x, alpha=1.0),
        "elu": lambda x: ops.elu(x, alpha=1.0),
        "gelu_erf": lambda x: ops.gelu(x, approximate=False),
        "gelu_tanh": gelu_tanh,
        "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=slope),
        "log_sigmoid": ops.log_sigmoid,
        "relu": ops.relu,
        "relu6": ops.relu6,
        "selu": selu,
        "sigmoid": ops.sigmoid,
        "silu": ops.silu,
        "soft_sign": soft_sign,
        "softplus": ops.softplus,
        "tanh": ops.tanh,
    }
    return functions[kind]


def standardise(
    kernel: Any, gain: Any, *, eps: float, eps_rule: str, ddof: int, gamma: float
) -> Any:
    """`gain · gamma · (w - mean) · s` over each output channel's fan-in N.

    Args:
        kernel: (k, k, I/groups, O).
        gain: (O,).
        eps, eps_rule: s is `max`: 1/sqrt(max(N·var, eps)); `add`: 1/sqrt(N·(var + eps));
            `add_to_std`: 1/(sqrt(N)·(sqrt(var) + eps)). With `none` it is `gain · gamma · w`.
        ddof: The variance is divided by N - ddof.
        gamma: A number.
    """
    if eps_rule == "none":
        return kernel * (gain * gamma)
    n = fan_in(kernel)
    centred = kernel - ops.mean(kernel, axis=(0, 1, 2))
    # The mean's rounding error is the same for every weight of a channel, and the activations
    # that meet it have a mean of their own, so it would add up over the taps and not average
    # out over the image. Exactly, this second mean is zero, and so is its gradient.
    centred = centred - ops.stop_gradient(ops.mean(centred, axis=(0, 1, 2)))
    variance = ops.sum(ops.square(centred), axis=(0, 1, 2)) / (n - ddof)
    if eps_rule == "max":
        # With dynamic=True, PyTorch's compiler has a symbol for eps, which Keras does not know.
        scale = ops.rsqrt(ops.maximum(n * variance, ops.cast(eps, variance.dtype)))
    elif eps_rule == "add":
        scale = ops.rsqrt(n * (variance + eps))
    else:
        # The root of a constant channel's 0 has no derivative; the scale there has one, 0.
        varies = variance > 0.0
        std = ops.where(varies, ops.sqrt(ops.where(varies, variance, 1.0)), 0.0)
        scale = n**-0.5 / (std + eps)
    return centred * (scale * gain * gamma)


def fan_in(kernel: Any) -> int:
    """N of a kernel, (k, k, I/groups, O)."""
    return int(kernel.shape[0] * kernel.shape[1] * kernel.shape[2])


def symmetric_pad(kernel: int, stride: int) -> int:
    """The padding that `symmetric` adds at both ends, px."""
    return (stride + kernel - 2) // 2


def _pads_itself(*sides: Any) -> bool:
    """True if `same` padding is computed here.

    On PyTorch Keras decides in Python, by the size of the image at hand, which is wrong for other
    sizes once it is traced (as of 3.15). On JAX sides may be symbols, and then what is strided in
    two ways has to have sides that are the same expression.
    """
    backend = keras.backend.backend()
    return backend == "torch" or (backend == "jax" and not all(isinstance(n, int) for n in sides))


def pad_image(
    x: Any,
    kernel: int,
    stride: int,
    padding: str,
    data_format: str,
    fill: float,
    whole: bool = False,
) -> tuple[Any, str]:
    """Pad an image where the operation cannot, and return what is left for it to do.

    `symmetric` is not known to Keras; for `same` see `_pads_itself`. Where `whole`, it is
    all done here.
    """
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    sides = x.shape[axes[0]], x.shape[axes[1]]
    here = padding == "same" and (whole or _pads_itself(*sides))
    if padding != "symmetric" and not here:
        return x, padding
    fixed = symmetric_pad(kernel, stride)
    if kernel == 1 if here else fixed == 0:
        return x, "valid"
    pads: list[tuple[Any, Any]] = [(0, 0)] * 4
    for axis in axes:
        pads[axis] = same_pads(x.shape[axis], kernel, stride) if here else (fixed, fixed)
    if keras.backend.backend() == "torch":
        from torch.nn import functional

        # Keras's makes an object with a new name in each call, which PyTorch's compiler notices.
        return functional.pad(x, [n for pair in reversed(pads) for n in pair], value=fill), "valid"
    return ops.pad(x, pads, constant_values=fill), "valid"


def extent(kernel: Any, dilation: int) -> int:
    """Side of the window that a kernel covers, px."""
    return 1 + dilation * (int(kernel.shape[0]) - 1)


def convolve(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: int,
    padding: str,
    data_format: str,
    dilation: int,
) -> Any:
    """Grouped cross-correlation plus bias.

    Args:
        x: Images, (N, H, W, I) or (N, I, H, W).
        kernel: (k, k, I/groups, O), rounded to x's dtype.
        bias: (O,), likewise.
        strides: px.
        padding: `same` (an odd pixel goes after), `symmetric` or `valid`.
        data_format: `channels_last` or `channels_first`.
        dilation: Distance of the kernel's taps, px.
    """
    kernel, bias = ops.cast(kernel, x.dtype), ops.cast(bias, x.dtype)
    x, padding = pad_image(x, extent(kernel, dilation), strides, padding, data_format, 0.0)
    how = (strides, padding, data_format, dilation)
    if data_format == "channels_last":
        return ops.conv(x, kernel, *how) + bias
    if keras.backend.backend() != "tensorflow":
        return ops.conv(x, kernel, *how) + ops.reshape(bias, (1, -1, 1, 1))
    # TensorFlow has no NCHW conv for CPUs on which it does not use oneDNN, those without
    # AVX-512: https://github.com/keras-team/keras/issues/20414 (as of 2.21). On GPUs its layout
    # optimiser takes these transpositions out again.
    last = ops.transpose(x, (0, 2, 3, 1))
    out = ops.conv(last, kernel, strides, padding, "channels_last", dilation) + bias
    return ops.transpose(out, (0, 3, 1, 2))


def activated(convolve: Callable[..., Any]) -> Callable[..., Any]:
    """A framework's `convolve_activated`, where it has no conv with the activation within."""

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
        """`convolve` and an activation without gamma; other arguments as theirs."""
        out = convolve(x, kernel, bias, strides, padding, data_format, dilation)
        return activate(kind, slope)(out)

    return convolve_activated


convolve_activated = activated(convolve)


def dense(x: Any, kernel: Any, bias: Any) -> Any:
    """(N, I) by a kernel (I, O), plus bias (O,), both rounded to x's dtype."""
    return ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(bias, x.dtype)


def gated(x: Any, gate: Any) -> Any:
    """Images times a gate, which has one number for each channel of an image, and their dtype."""
    return x * gate


def scale_add(branch: Any, scale: Any, shortcut: Any) -> Any:
    """`scale · branch + shortcut`; scale is a number, or a tensor that broadcasts to the images'
    shape and is rounded to their dtype."""
    number = isinstance(scale, int | float)
    return branch * (scale if number else ops.cast(scale, branch.dtype)) + shortcut


def average_pool(x: Any, window: int, strides: int, padding: str, data_format: str) -> Any:
    """Means over windows; padding does not count as pixels.

    In float16 they are taken in float32: JAX and TensorFlow add up the window in the dtype of the
    images, and four numbers beyond 16376 are infinite.
    """
    if keras.backend.standardize_dtype(x.dtype) == "float16":
        wide = average_pool(ops.cast(x, "float32"), window, strides, padding, data_format)
        return ops.cast(wide, "float16")
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    if padding != "same" or not _pads_itself(*(x.shape[axis] for axis in axes)):
        return ops.average_pool(x, window, strides, padding, data_format)
    # Keras on PyTorch, as of 3.15, repeats the edge instead of not counting it:
    # https://github.com/keras-team/keras/pull/23233
    within = x[:1, :, :, :1] if data_format == "channels_last" else x[:1, :1]
    means = [
        ops.average_pool(
            pad_image(y, window, strides, padding, data_format, 0.0)[0],
            window,
            strides,
            "valid",
            data_format,
        )
        for y in (x, ops.ones_like(within))
    ]
    return means[0] / means[1]


def unit_norms(x: Any, axes: tuple[int, ...] | None) -> Any:
    """L2 norm of each unit, with the reduced axes kept; of each element where there are none."""
    if axes == ():
        return ops.abs(x)
    return ops.sqrt(ops.sum(ops.square(x), axis=axes, keepdims=True))


def kept(shape: Sequence[int], axes: tuple[int, ...] | None) -> list[int]:
    """A shape whose reduced axes are 1."""
    return [1 if axes is None or axis in axes else n for axis, n in enumerate(shape)]


def clip_dtype(parameter: Any) -> str:
    """The dtype that the gradient of a parameter is clipped in."""
    dtype = keras.backend.standardize_dtype(parameter.dtype)
    return "float64" if dtype == "float64" else "float32"


def scales(of_gradient: Any, of_parameter: Any, clipping: Any, eps: Any) -> tuple[Any, Any]:
    """The factor of each unit's gradient, and whether the unit is clipped.

    Args:
        of_gradient, of_parameter: Norms, of one shape.
        clipping, eps: Numbers, or in that shape.
    """
    # Written with `where`, because frameworks differ in what a maximum makes of NaN.
    limit = clipping * ops.where(of_parameter < eps, eps, of_parameter)
    least = ops.where(of_gradient < LEAST_GRADIENT_NORM, LEAST_GRADIENT_NORM, of_gradient)
    clipped = of_gradient > limit
    return ops.where(clipped, limit / least, 1.0), clipped


def clip(gradient: Any, parameter: Any, rule: ClipRule) -> tuple[Any, Any]:
    """Clip a gradient by the norms of its parameter's units.

    Norms are taken in float32, or in float64 where the parameter is. A unit exactly at its bound is
    left as it is. A unit is left as it is, too, where its gradient has a NaN or its parameter is
    not finite; where its gradient has an infinity, that element becomes NaN and the others 0. A
    norm is infinite, too, where squares overflow (elements beyond 1.8e19 in float32). Other units
    are not affected.

    Args:
        gradient: In the parameter's shape, of any float dtype; whole (accumulated, reduced over
            devices) and not scaled for float16. On PyTorch it may be overwritten.
        parameter: In the canonical layout.
        rule: `nfspec.plan.clipping.clip_rule` of the parameter.

    Returns:
        The gradient in its own dtype, and the fraction of units that were clipped, float32.
    """
    if rule.clipping is None:
        return gradient, ops.zeros((), "float32")
    wide = clip_dtype(parameter)
    of_parameter = unit_norms(ops.cast(parameter, wide), rule.axes)
    g = ops.cast(gradient, wide)
    scale, clipped = scales(unit_norms(g, rule.axes), of_parameter, rule.clipping, rule.eps)
    scaled = g * scale
    fraction = ops.mean(ops.cast(clipped, "float32"))
    return ops.cast(scaled, gradient.dtype), fraction


def clip_all(
    gradients: Sequence[Any], parameters: Sequence[Any], rules: Sequence[ClipRule]
) -> tuple[list[Any], list[Any]]:
    """`clip` each gradient; returns the gradients, and the clip fraction of each."""
    pairs = [clip(*three) for three in zip(gradients, parameters, rules, strict=True)]
    return [gradient for gradient, _ in pairs], [fraction for _, fraction in pairs]


def uniform(shape: Sequence[Any], seeds: keras.random.SeedGenerator, x: Any) -> Any:
    """The next numbers of [0, 1) of a sequence, in float32, on the device of `x`."""
    return keras.random.uniform(shape, dtype="float32", seed=seeds)
