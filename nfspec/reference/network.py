"""Evaluate a whole plan in float64, exactly or with the noise of float32 rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec.arguments import mapping
from nfspec.errors import InputError
from nfspec.plan import (
    ECA,
    INPUT,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.activations import apply
from nfspec.plan.initialise import Params
from nfspec.reference import operations as ops
from nfspec.reference.inputs import as_images, checked_params
from nfspec.reference.rounding import Rounding

Array = NDArray[np.float64]


def evaluate(
    op: Operation, inputs: list[Array], values: list[Array], rounding: Rounding | None = None
) -> Array:
    """Evaluate one operation.

    Args:
        op: The operation.
        inputs: Arrays that it reads.
        values: Its parameters, in the order of `op.parameters`.
        rounding: Perturb it as rounding would; exact if not given.
    """
    x = inputs[0]
    match op:
        case WSConv():
            return _ws_conv(op, x, values, rounding)
        case Conv():
            kernel, bias = values
            return apply(op.activation, _conv(op, x, kernel, bias, rounding), op.slope)
        case Activation():
            return ops.activation(op, x)
        case Pool():
            return ops.pool(op, x)
        case SqueezeExcite():
            return ops.squeeze_excite(op, x, *values)
        case ECA():
            return ops.eca(op, x, *values)
        case Residual():
            return _residual(op, inputs, values)
        case GlobalPool():
            out = op.scale * x.mean(axis=(1, 2))
            return rounding.mean(out, x.shape[1] * x.shape[2]) if rounding else out
        case Dense():
            out = x @ values[0]
            return (rounding.dense(out, x, values[0]) if rounding else out) + values[1]
        case StochasticDepth() | Dropout():
            return x  # the reference draws no random numbers
        case _:
            raise unknown_operation(op, "nfspec.reference.forward")


def _ws_conv(op: WSConv, x: Array, values: list[Array], rounding: Rounding | None) -> Array:
    kernel, *gains, bias = values
    gain = gains[0] if gains else np.ones(op.out_channels)
    centred, divisor = ops.centred(op, kernel)
    scale, narrow = op.gamma * gain / divisor, op.dtype == "compute"
    standard = centred * scale
    if rounding is None or op.eps_rule == "none":
        return _conv(op, x, standard, bias, rounding)
    noisy = rounding.kernel(standard, kernel, scale, narrow)
    out = ops.conv(x, noisy, *op.sliding)
    rounded = rounding.weights(kernel, scale, narrow)
    return rounding.conv(out, x, noisy, op.groups, rounded) + bias


def _conv(
    op: Conv | WSConv, x: Array, kernel: Array, bias: Array, rounding: Rounding | None
) -> Array:
    out = ops.conv(x, kernel, *op.sliding)
    return (rounding.conv(out, x, kernel, op.groups) if rounding else out) + bias


def _residual(op: Residual, inputs: list[Array], values: list[Array]) -> Array:
    factor: float | Array = op.alpha * (float(values[0]) if values else 1.0)
    if len(inputs) == 3:
        factor = factor * inputs[2][:, None, None, :]
    return factor * inputs[0] + inputs[1]


def forward(
    plan: Plan,
    params: Params,
    x: ArrayLike,
    taps: Mapping[str, str] | None = None,
    rounding: Rounding | None = None,
    change: Callable[[Operation, Array, Array], Array] | None = None,
) -> dict[str, Array]:
    """Evaluate a plan in float64.

    Args:
        plan: The network.
        params: Canonical name to array; kernels HWIO, dense kernels IO.
        x: Images, (N, H, W, channels).
        taps: Names to return, and the operation behind each; `plan.taps` if not given.
        rounding: Perturb every operation as float32 rounding would; exact if not given.
        change: Function of an operation, its first input and its output, which returns the output
            that the operations after it read: the hypothesis of a mistake. Nothing is changed if
            it is not given.

    Returns:
        Tap name to float64 array.

    Raises:
        InputError: `x` is not a batch of such images, in finite floating numbers, or a tap is of
            no operation.
        WeightError: Names or shapes of `params` are not the plan's.
    """
    image = as_images(plan, x)
    own = checked_params(plan, params)
    taps = plan.taps if taps is None else mapping("taps", taps, "operations' names")
    known = {INPUT, *(op.name for op in plan.ops)}
    for tap, name in taps.items():
        if name not in known:
            raise InputError(f"taps: {tap}: no operation of {plan.name} is called {name!r}")
    kept = set(taps.values())
    last_use = {name: i for i, op in enumerate(plan.ops) for name in op.inputs}
    values: dict[str, Array] = {INPUT: image}
    for i, op in enumerate(plan.ops):
        # Converted here, so that the float64 copies are of one operation at a time.
        of_op = [np.asarray(own[p.name], np.float64) for p in op.parameters]
        out = evaluate(op, [values[name] for name in op.inputs], of_op, rounding)
        out = change(op, values[op.inputs[0]], out) if change else out
        values[op.name] = rounding.output(out) if rounding else out
        for name in op.inputs:
            if last_use[name] == i and name not in kept:
                values.pop(name, None)
    return {tap: values[name] for tap, name in taps.items()}
