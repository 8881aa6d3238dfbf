"""The loss of a whole plan in float64, and its derivatives by every parameter and by the images.

Dropout and stochastic depth are identities, as in `forward`: this is exactly training with both
off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec.errors import InputError
from nfspec.plan import (
    ECA,
    INPUT,
    Activation,
    Convolution,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    unknown_operation,
)
from nfspec.reference.derivatives import vjp
from nfspec.reference.inputs import as_images, as_params, finite, float64
from nfspec.reference.network import evaluate
from nfspec.reference.rounding import Rounding

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays have no equality of their own
class Gradients:
    """A loss and what it depends on.

    Attributes:
        loss: Mean cross-entropy over the batch, in nats.
        logits: (N, classes).
        of_images: Derivative by the images, (N, H, W, channels).
        of_parameters: Canonical name to derivative, in order of execution and the canonical layout.
    """

    loss: float
    logits: Array
    of_images: Array
    of_parameters: dict[str, Array]


def cross_entropy(
    logits: Array, targets: Array, rounding: Rounding | None = None
) -> tuple[float, Array]:
    """Mean of `-Σ_k targets_k · log softmax(logits)_k` over the batch, and its derivative.

    Args:
        logits: (N, classes).
        targets: (N, classes); distributions, but rows need not sum to 1.
        rounding: Perturb both as rounding would; exact if not given.

    Returns:
        The loss, and its derivative by `logits`.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    scores = shifted - np.log(total)
    softmax = np.exp(shifted) / total
    mass = targets.sum(axis=1, keepdims=True)
    slope = (softmax * mass - targets) / len(logits)
    if rounding:
        scores, slope = rounding.scores(scores, shifted), rounding.output(slope)
    loss = np.asarray(-(targets * scores).sum() / len(logits))
    return float(rounding.output(loss) if rounding else loss), slope


def _terms(op: Operation, x: Array, dy: Array) -> tuple[int, int]:
    """The number of terms in the sum that is a gradient by an input, and by a parameter."""
    match op:
        case Convolution():
            return op.kernel**2 * op.out_channels // op.groups, dy[..., 0].size
        case SqueezeExcite() | ECA():
            return x[0, ..., 0].size, x[..., 0].size
        case Residual():
            return 1, x.size
        case Dense():
            return op.out_features, len(x)
        case Activation() | Pool() | StochasticDepth() | GlobalPool() | Dropout():
            return 1, 1
        case _:
            raise unknown_operation(op, "nfspec.reference.loss_and_gradients")


def loss_and_gradients(
    plan: Plan,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    targets: ArrayLike,
    rounding: Rounding | None = None,
) -> Gradients:
    """Mean softmax cross-entropy and its derivatives, by one sweep forward and one back.

    Holds every activation of the forward pass until the sweep back has passed it.

    Args:
        plan: The network.
        params: Canonical name to array; kernels HWIO, dense kernels IO.
        x: Images, (N, H, W, channels), N at least 1.
        targets: A distribution over classes for each image, (N, classes);
            `nfspec.reference.training.smoothed` makes them from labels.
        rounding: Perturb every operation and derivative as rounding would; exact if not given.

    Raises:
        InputError: `x` is not a batch of such images, or `targets` are not of that shape; both in
            finite floating numbers.
        WeightError: Names or shapes of `params` are not the plan's.
    """
    image = as_images(plan, x)
    wanted = finite("targets", float64("targets", targets, "an array of shape (N, classes)", "fiu"))
    given = as_params(plan, params)
    own = {op.name: [given[p.name] for p in op.parameters] for op in plan.ops}
    values: dict[str, Array] = {INPUT: image}
    for op in plan.ops:
        out = evaluate(op, [values[name] for name in op.inputs], own[op.name], rounding)
        values[op.name] = rounding.output(out) if rounding else out
    logits = values[plan.taps["logits"]]
    if wanted.shape != logits.shape:
        raise InputError(
            f"targets: expected a distribution for each image, shape {logits.shape}; found "
            f"{wanted.shape}. nfspec.reference.training.smoothed makes them from labels"
        )
    loss, dlogits = cross_entropy(logits, wanted, rounding)
    of_images, of_parameters = _backward(plan, own, values, dlogits, rounding)
    return Gradients(loss, logits, of_images, of_parameters)


def _backward(
    plan: Plan,
    own: Mapping[str, list[Array]],
    values: dict[str, Array],
    dlogits: Array,
    rounding: Rounding | None,
) -> tuple[Array, dict[str, Array]]:
    """Sweep back from the logits: derivatives by the images, and by each parameter.

    Args:
        plan: The network.
        own: Operation name to its parameters.
        values: Operation name to its output; emptied on the way, to free memory.
        dlogits: Derivative by the logits.
        rounding: Perturb every derivative as rounding would; exact if not given.
    """
    by_value = {plan.taps["logits"]: dlogits}
    by_parameter: dict[str, Array] = {}
    for op in reversed(plan.ops):
        del values[op.name]  # its readers, which are done, were the last to need it
        inputs = [values[name] for name in op.inputs]
        dy = by_value.pop(op.name)
        of_inputs, of_values = vjp(op, dy, inputs, own[op.name])
        if rounding:
            n, m = _terms(op, inputs[0], dy)
            of_inputs = [rounding.gradient(dx, n) for dx in of_inputs]
            of_values = [rounding.gradient(dvalue, m) for dvalue in of_values]
        for name, dx in zip(op.inputs, of_inputs, strict=True):
            by_value[name] = by_value[name] + dx if name in by_value else dx
        by_parameter.update(zip((p.name for p in op.parameters), of_values, strict=True))
    return by_value[INPUT], {name: by_parameter[name] for name in plan.parameters}
