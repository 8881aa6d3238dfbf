"""Bounds of adaptive gradient clipping, and of one step of the optimizer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.bounds.bounded import Terms
from nfspec.conformance.bounds.sums import summing
from nfspec.conformance.cases.precision import FULL, Precision
from nfspec.language.tables import Recipe
from nfspec.plan.clipping import LEAST_GRADIENT_NORM, ClipRule
from nfspec.reference import training

Array = NDArray[np.float64]


def _norm(value: Array, axes: tuple[int, ...], unit: float) -> tuple[Array, Array]:
    """L2 norm of each unit, and its relative bound."""
    n = int(np.prod([value.shape[axis] for axis in axes], dtype=int))
    squares = (value**2).sum(axis=axes, keepdims=True)
    fourths = (value**4).sum(axis=axes, keepdims=True)
    relative = summing(n, squares, fourths, unit) / np.where(squares == 0.0, 1.0, squares)
    return np.sqrt(squares), 0.5 * relative + 2.0 * unit


def clip(
    gradient: Array, parameter: Array, rule: ClipRule, precision: Precision
) -> tuple[Array, Terms, NDArray[np.bool_]]:
    """Exact clipped gradient, the terms of its bound, and which units are clipped.

    Norms are in float32 in every mode. A unit that rounding cannot bring over its bound is left as
    it is, to the bit: there the bound is 0. Clipping is continuous where a norm meets its bound, so
    that a unit that rounding may bring over it needs no exception.
    """
    if rule.clipping is None:
        return gradient, {}, np.zeros((1,) * gradient.ndim, bool)
    axes = tuple(range(gradient.ndim)) if rule.axes is None else rule.axes
    u = FULL.accumulate
    of_gradient, by_gradient = _norm(gradient, axes, u)
    of_parameter, by_parameter = _norm(parameter, axes, u)
    limit = rule.limits(of_parameter)
    exact, _ = training.clip(gradient, parameter, rule)
    relative = by_gradient + by_parameter + 6.0 * u
    free = of_gradient < limit * (1.0 - relative)
    guarded = np.maximum(of_gradient, LEAST_GRADIENT_NORM)
    factor = np.where(free, 0.0, np.abs(gradient) * np.minimum(1.0, limit / guarded))
    stored = 0.0 if precision.store == u else precision.store
    terms = {
        "norm of the gradient": factor * by_gradient,
        "norm of the parameter": factor * by_parameter,
        "store": factor * (6.0 * u + stored) + np.where(free, 0.0, precision.least),
    }
    return exact, terms, of_gradient > limit


def step(
    gradient: Array,
    parameter: Array,
    momentum: Array,
    rule: ClipRule,
    rate: float,
    decay: float,
    recipe: Recipe,
) -> dict[str, tuple[Array, Terms]]:
    """One parameter's step of the optimizer in float32: the new parameter, and the new buffer."""
    u = FULL.store
    clipped, terms, _ = clip(gradient, parameter, rule, FULL)
    after, buffer = training.descend(parameter, clipped, momentum, rate, decay, recipe)
    decayed = decay * np.abs(parameter)
    size = np.abs(clipped) + decayed
    of_gradient = sum(terms.values()) + 3.0 * u * size
    of_buffer = of_gradient + 3.0 * u * (recipe.momentum * np.abs(momentum) + size)
    total = size + recipe.momentum * (recipe.momentum * np.abs(momentum) + size)
    of_step = of_gradient + recipe.momentum * of_buffer + 3.0 * u * total
    stored = 2.0 * u * (np.abs(parameter) + np.abs(after)) + FULL.least
    schedule = 8.0 * u * rate * total  # the rate is a cosine computed in float32
    return {
        "parameter": (after, {"step": rate * of_step, "schedule": schedule, "store": stored}),
        "momentum": (buffer, {"clip and decay": of_gradient, "sum": of_buffer - of_gradient}),
    }
