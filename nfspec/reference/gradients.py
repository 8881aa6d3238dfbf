"""The loss of a whole plan in float64, and its derivative by every parameter and by the images.

Dropout and stochastic depth are identities, as in `forward`: this is exactly training with both
off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec.errors import InputError
from nfspec.plan import ECA, INPUT, Dense, Op, Plan, Residual, SqueezeExcite, WSConv
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


def _terms(op: Op, x: Array, dy: Array) -> tuple[int, int]:
    """How many terms a gradient by an input, and one by a parameter, is the sum of."""
    match op:
        case WSConv():
            return op.kernel**2 * op.out_channels // op.groups, dy[..., 0].size
        case SqueezeExcite() | ECA():
            return x[0, ..., 0].size, x[..., 0].size
        case Residual():
            return 1, x.size
        case Dense():
            return op.out_features, len(x)
    return 1, 1


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

    by_value = {plan.taps["logits"]: dlogits}
    by_parameter: dict[str, Array] = {}
    for op in reversed(plan.ops):
        del values[op.name]  # only what read it, and is done with, needed it
        inputs = [values[name] for name in op.inputs]
        dy = by_value.pop(op.name)
        of_inputs, of_values = vjp(op, dy, inputs, own[op.name])
        if rounding:
            n, m = _terms(op, inputs[0], dy)
            of_inputs = [rounding.gradient(found, n) for found in of_inputs]
            of_values = [rounding.gradient(found, m) for found in of_values]
        for name, found in zip(op.inputs, of_inputs, strict=True):
            by_value[name] = by_value[name] + found if name in by_value else found
        by_parameter.update(zip((p.name for p in op.parameters), of_values, strict=True))
    ordered = {name: by_parameter[name] for name in plan.parameters}
    return Gradients(loss, logits, by_value[INPUT], ordered)
