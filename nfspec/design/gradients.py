"""The norms of gradients, block by block."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from nfspec import reference
from nfspec.arguments import whole
from nfspec.plan import Plan
from nfspec.plan.initialise import Params
from nfspec.reference.inputs import as_images


def gradient_norms(plan: Plan, params: Params, x: ArrayLike, seed: int = 0) -> dict[str, float]:
    """The norm of the gradient by the parameters of the stem, each block and the head.

    The loss is the cross-entropy with labels that are drawn at random, in float64.

    Args:
        plan: The network.
        params: Canonical name to array.
        x: Images, (N, H, W, channels).
        seed: Seed of the labels.

    Raises:
        InputError: The images are none of the network's.
        WeightError: `params` are not the plan's.
    """
    images = as_images(plan, x)
    classes = plan.tap_info["logits"].channels
    labels = np.random.default_rng(whole("seed", seed, 0)).integers(classes, size=len(images))
    targets = np.eye(classes)[labels]
    gradients = reference.loss_and_gradients(plan, params, images, targets).of_parameters
    squares: dict[str, float] = {}
    for op in plan.ops:
        for parameter in op.parameters:
            square = float(np.sum(gradients[parameter.name] ** 2))
            squares[plan.section(op)] = squares.get(plan.section(op), 0.0) + square
    return {name: math.sqrt(square) for name, square in squares.items()}
