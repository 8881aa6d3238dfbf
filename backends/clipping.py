"""Adaptive gradient clipping of one tensor, in Keras's operations: the same on every framework.

Source: deepmind-research/nfnets/optim.py, `SGD_AGC` (Brock et al. 2021, arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from nfspec.clipping import LEAST_GRADIENT_NORM, ClipRule


def unit_norms(x: Any, axes: tuple[int, ...] | None) -> Any:
    """L2 norm of each unit, with the reduced axes kept; of each element where there are none."""
    if axes == ():
        return ops.abs(x)
    return ops.sqrt(ops.sum(ops.square(x), axis=axes, keepdims=True))


def clip(gradient: Any, parameter: Any, rule: ClipRule) -> tuple[Any, Any]:
    """Clip a gradient by the norms of its parameter's units.

    Norms are taken in float32, or in float64 where the parameter is. A unit exactly at its bound is
    left as it is. A unit is left as it is, too, where its gradient has a NaN or its parameter is
    not finite; where its gradient has an infinity, that element becomes NaN and the others 0. A
    norm is infinite, too, where squares overflow (elements beyond 1.8e19 in float32). Other units
    are not affected.

    Args:
        gradient: In the parameter's shape, of any float dtype; whole (accumulated, reduced over
            devices) and not scaled for float16.
        parameter: In the canonical layout.
        rule: `nfspec.clipping.clip_rule` of the parameter.

    Returns:
        The gradient in its own dtype, and the fraction of units that were clipped, float32.
    """
    if rule.clipping is None:
        return gradient, ops.zeros((), "float32")
    wide = "float64" if keras.backend.standardize_dtype(parameter.dtype) == "float64" else "float32"
    of_parameter = unit_norms(ops.cast(parameter, wide), rule.axes)
    g = ops.cast(gradient, wide)
    of_gradient = unit_norms(g, rule.axes)
    # Written with `where`, because frameworks differ in what a maximum makes of NaN.
    limit = rule.clipping * ops.where(of_parameter < rule.eps, rule.eps, of_parameter)
    least = ops.where(of_gradient < LEAST_GRADIENT_NORM, LEAST_GRADIENT_NORM, of_gradient)
    clipped = of_gradient > limit
    scaled = g * ops.where(clipped, limit / least, 1.0)
    fraction = ops.mean(ops.cast(clipped, "float32"))
    return ops.cast(scaled, gradient.dtype), fraction


def clip_all(
    gradients: Iterable[Any], parameters: Iterable[Any], rules: Iterable[ClipRule]
) -> tuple[list[Any], list[Any]]:
    """Clip a list of gradients, None where a parameter has none.

    Returns:
        The gradients, and the clip fraction of each parameter.
    """
    pairs = [
        (None, ops.zeros((), "float32")) if gradient is None else clip(gradient, parameter, rule)
        for gradient, parameter, rule in zip(gradients, parameters, rules, strict=True)
    ]
    return [gradient for gradient, _ in pairs], [fraction for _, fraction in pairs]
