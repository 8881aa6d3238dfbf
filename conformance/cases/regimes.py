"""The arrays of a case, drawn by its regime.

Hypothesis never chooses single elements: the bounds take rounding errors for independent, which
holds for random operands and need not hold for contrived ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.case import Arrays, Case, Clip, local_names
from nfspec.conformance.cases.precision import LARGEST, MODES, narrow
from nfspec.plan import Activation, Op, WSConv
from nfspec.plan.clipping import LEAST_GRADIENT_NORM

Array = NDArray[np.float64]

CONV_REGIMES = ("normal", "offset", "eps", "positive", "outlier")
IMAGE_REGIMES = ("normal", "positive", "outlier")
RANGE = "range"  # for activations: numbers of every size that a mode stores
CLIP_REGIMES = ("some", "boundary", "tiny", "large", "zero")


def images(rng: np.random.Generator, shape: tuple[int, ...], regime: str) -> Array:
    """Activations (N, H, W, C) or features (N, C): about standard normal; all positive; or with
    one channel a hundred times as large as the others."""
    x = rng.standard_normal(shape)
    if regime == "positive":
        x = np.abs(x) + 5.0
    if regime == "outlier":
        x[..., rng.integers(shape[-1])] *= 100.0
    return x


def kernels(rng: np.random.Generator, op: WSConv, regime: str) -> Array:
    """Weights at fan-in scale.

    `offset`: a mean of a hundred standard deviations. `eps`: channels' scales spread around that
    at which eps matters.
    """
    shape = op.parameters[0].shape
    w = rng.standard_normal(shape) * op.fan_in**-0.5
    if regime == "offset":
        w = w + 100.0 * op.fan_in**-0.5
    if regime == "eps":
        w = w * ((eps_scale(op) or 1.0) * np.exp(rng.uniform(-3.0, 3.0, shape[-1])))
    return w


def eps_scale(op: WSConv) -> float:
    """The standard deviation, at fan-in scale, of weights whose variance eps equals; 0 of a conv
    that has no eps."""
    scales = {
        "max": np.sqrt(op.eps),
        "add": np.sqrt(op.fan_in * op.eps),
        "add_to_std": np.sqrt(op.fan_in) * op.eps,
        "none": 0.0,
    }
    return float(scales[op.eps_rule])


def conv(case: Case) -> Arrays:
    """x, kernel, gain and bias; gains of both signs, none near 0."""
    rng, op = case.rng(), case.op
    channels = op.out_channels
    gain = rng.uniform(0.5, 2.0, channels) * rng.choice([-1.0, 1.0], channels)
    return as_float32(
        x=images(rng, case.shape, case.regime),
        kernel=kernels(rng, op, case.regime),
        gain=gain,
        bias=0.1 * rng.standard_normal(channels),
    )


def layer(case: Case) -> Arrays:
    """x and the parameters, by local name, of any other operation: kernels at fan-in scale."""
    rng, op = case.rng(), case.op
    arrays = {"x": images(rng, case.shape, case.regime)}
    for name, parameter in parameters(op).items():
        z = rng.standard_normal(parameter)
        arrays[name] = z * parameter[0] ** -0.5 if name.endswith("kernel") else 0.3 * z
    return as_float32(**arrays)


def whole_range(case: Case, times: float, slopes: bool) -> Array:
    """The input of an activation: numbers of both signs, of every size from 2^-9 to the largest.

    The largest one is the largest for which a mode has to give the right result; it is among them.

    Functions form products on their way, such as x · (1 + tanh) before it is halved, or dy · x
    before it meets a slope of 0, and on JAX and TensorFlow these are the framework's own. Numbers
    for which they overflow are not tested.

    Args:
        case: The case of an activation.
        times: Largest ratio of such a product to x, apart from gamma and beta.
        slopes: True if slopes are tested. That of tanh GELU has x³ in it, and PyTorch's and
            TensorFlow's own are no number where x² or x³ overflows.
    """
    rng, op = case.rng(), case.op
    assert isinstance(op, Activation)
    factor = times * max(1.0, *map(abs, (op.gamma, op.beta, op.gamma * op.beta)))
    largest = LARGEST[case.mode] / factor * (1.0 - 16.0 * MODES[case.mode].store)
    if slopes and op.kind == "gelu_tanh":
        largest = min(largest, 0.5 * LARGEST[case.mode] ** (1 / 3))
    x = 2.0 ** rng.uniform(-9.0, np.log2(largest), case.shape)
    x.flat[:2] = largest
    return np.asarray(x * np.resize([1.0, -1.0], case.shape))


def parameters(op: Op) -> dict[str, tuple[int, ...]]:
    """The shapes of an operation's parameters, by local name."""
    return dict(zip(local_names(op), (q.shape for q in op.parameters), strict=True))


def clipping(case: Case) -> Arrays:
    """A gradient and a parameter, some of whose units are clipped.

    `some`: gradient norms spread around their bounds. `boundary`: within rounding of them. `tiny`:
    parameters smaller than eps. `large`: gradients a thousand times their bounds. `zero`: half of
    the units of either are 0.
    """
    rng, op = case.rng(), case.op
    assert isinstance(op, Clip)
    rule = op.rule
    axes = tuple(range(len(op.shape))) if rule.axes is None else rule.axes
    p, g = rng.standard_normal(op.shape), rng.standard_normal(op.shape)

    shape = tuple(1 if axis in axes else n for axis, n in enumerate(op.shape))
    n = p.size / max(1, int(np.prod(shape, dtype=int)))
    p = p * np.exp(rng.uniform(-1.0, 2.0, shape)) * n**-0.5
    if case.regime == "tiny":
        p = p * rule.eps * np.exp(rng.uniform(-4.0, 1.0, shape))
    else:  # above eps, also where a unit is one element and near 0 by chance
        norm = np.sqrt((p**2).sum(axis=axes, keepdims=True))
        p = p * np.maximum(1.0, 2.0 * rule.eps / norm)
    p = p.astype(np.float32).astype(np.float64)
    assert rule.clipping is not None
    limit = rule.clipping * np.maximum(np.sqrt((p**2).sum(axis=axes, keepdims=True)), rule.eps)
    spread = {"boundary": 2.0**-22, "large": 2.0}.get(case.regime, 1.5)
    factor = np.exp(rng.uniform(-spread, spread, shape)) * (1e3 if case.regime == "large" else 1.0)
    norm = np.sqrt((g**2).sum(axis=axes, keepdims=True))
    g = g / np.maximum(norm, LEAST_GRADIENT_NORM) * limit * factor
    if case.regime == "zero":
        off = rng.random(shape) < 0.5
        p, g = np.where(off, 0.0, p), np.where(rng.random(shape) < 0.25, 0.0, g)
    arrays = as_float32(gradient=g, parameter=p)
    return {**arrays, "gradient": narrow(arrays["gradient"], case.mode)}


def as_float32(**arrays: Array) -> Arrays:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}
