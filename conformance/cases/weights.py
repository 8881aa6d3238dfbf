"""Weights that make every parameter matter.

Training starts from gains of 1, biases of 0 and skip gains of 0, with which most mistakes in a port
do not show. These are drawn away from that, as the golden figures of the original were.
"""

from __future__ import annotations

import hashlib

import numpy as np

from nfspec.plan import Plan
from nfspec.plan.initialise import Params, generator


def trial_params(plan: Plan, seed: int, kernel_mean: float = 0.25) -> Params:
    """Draw weights from a seed, the same bits in every process.

    Kernels and classifier at fan-in scale; gains 1 ± 0.1; biases ± 0.1; skip gains 0.6 ± 0.1.

    Args:
        plan: The network.
        seed: At least 0.
        kernel_mean: Mean of conv kernels, in units of their std; standardisation must remove it.
    """
    params = {}
    for name, parameter in plan.parameters.items():
        z = generator(seed, f"trial/{name}").standard_normal(parameter.shape)
        if parameter.role == "kernel":
            value = parameter.init.value * (z + kernel_mean)
        elif parameter.role == "head":
            value = parameter.shape[0] ** -0.5 * z
        else:
            middle = {"gain": 1.0, "bias": 0.0, "skip_gain": 0.6}[parameter.role]
            value = middle + 0.1 * z
        params[name] = np.asarray(value, np.float32)
    return params


def params_digest(params: Params) -> str:
    """sha256 of names and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, value in params.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
