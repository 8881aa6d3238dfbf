"""Adaptive gradient clipping of a list of gradients, by the kernels that the network uses.

Source: deepmind-research/nfnets/optim.py, `SGD_AGC` (Brock et al. 2021, arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras import ops

from nfspec.backends.kernels import kernels
from nfspec.plan.clipping import ClipRule


def clip_all(
    gradients: Iterable[Any], parameters: Iterable[Any], rules: Iterable[ClipRule], plain: bool
) -> tuple[list[Any], list[Any]]:
    """Clip a list of gradients, None where a parameter has none; see `kernels.plain.clip`.

    Returns:
        The gradients, and the clip fraction of each parameter.
    """
    gradients, parameters, rules = list(gradients), list(parameters), list(rules)
    there = [i for i, gradient in enumerate(gradients) if gradient is not None]
    fractions = [ops.zeros((), "float32")] * len(gradients)
    clipped = kernels(plain).clip_all(
        [gradients[i] for i in there], [parameters[i] for i in there], [rules[i] for i in there]
    )
    for i, gradient, fraction in zip(there, *clipped, strict=True):
        gradients[i], fractions[i] = gradient, fraction
    return gradients, fractions
