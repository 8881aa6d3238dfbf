"""Weights that make every parameter matter.

Training starts from gains of 1, biases of 0 and skip gains of 0, with which most mistakes in a port
do not show. These are drawn away from that, as the golden figures of the original were.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.case import FLAT, GAINS
from nfspec.conformance.cases.regimes import eps_scale
from nfspec.plan import Plan, WSConv
from nfspec.plan.initialise import Params, generator

CHANNELS = ("flat", "normal", "alike", "normal", "zero", "normal", "flat", "normal")
SIZES = (1.0, -1.0, 8.0, 1e-3, 0.0, -4.0, 1.0, 0.5)  # of gains, before their rms is made 1


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
            z += kernel_mean
            z *= parameter.init.value
            value = z
        elif parameter.role == "head":
            value = parameter.shape[0] ** -0.5 * z
        else:
            middle = {"gain": 1.0, "bias": 0.0, "skip_gain": 0.6}[parameter.role]
            value = middle + 0.1 * z
        params[name] = np.asarray(value, np.float32)
    return params


def changed_params(plan: Plan, usual: Params, seed: int, regime: str) -> Params:
    """The weights of a network in a regime: with changes that make mistakes visible which the usual
    ones hide.

    Args:
        plan: The network.
        usual: Its weights by `trial_params`, of the same seed.
        seed: At least 0.
        regime: `FLAT`, `GAINS`, or another one, in which nothing is changed.
    """
    params = dict(usual)
    if regime == FLAT:
        for op in plan.ops:
            if isinstance(op, WSConv):
                name = op.parameters[0].name
                rng = generator(seed, f"{FLAT}/{name}")
                params[name] = np.asarray(_flattened(rng, op, params[name]), np.float32)
    if regime == GAINS:
        of_blocks = 0
        for name, parameter in plan.parameters.items():
            rng = generator(seed, f"{GAINS}/{name}")
            value: NDArray[np.float64] | float | None = None
            match parameter.role:
                case "gain":
                    value = rng.permutation(np.resize(SIZES, parameter.shape))
                    value = value / np.sqrt((value**2).mean())
                case "bias":
                    value = 0.5 * rng.standard_normal(parameter.shape)
                case "skip_gain":
                    value = (-1.0) ** of_blocks * (0.6 + 0.1 * rng.standard_normal())
                    of_blocks += 1
            if value is not None:
                params[name] = np.asarray(value, np.float32)
    return params


def _flattened(
    rng: np.random.Generator, op: WSConv, kernel: NDArray[np.float32]
) -> NDArray[np.float64]:
    """A kernel, some of whose channels are changed as `CHANNELS` has it.

    `flat`: a standard deviation at which eps matters, within factors of e^2 of it, and a mean as
    large. `alike`: every weight is such a mean.
    """
    at = eps_scale(op) * op.fan_in**-0.5
    if at == 0.0:
        return kernel.astype(np.float64)  # there is no eps, and weights that are alike make NaN
    shape = kernel.shape
    kinds = rng.permutation(np.resize(CHANNELS, shape[-1]))
    size = at * np.exp(rng.uniform(-2.0, 2.0, shape[-1]))
    flat = (rng.standard_normal(shape) + rng.choice([-1.0, 1.0], shape[-1])) * size
    alike = np.broadcast_to(size, shape)
    changed = np.where(kinds == "alike", alike, np.where(kinds == "zero", 0.0, flat))
    return np.where(kinds == "normal", kernel, changed)


def params_digest(params: Params) -> str:
    """sha256 of names and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, value in params.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
