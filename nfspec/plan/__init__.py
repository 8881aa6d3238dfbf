"""A Plan: every number of a network, worked out from its Spec.

It imports `language` and the root.
"""

from nfspec.plan.block import Block
from nfspec.plan.plan import (
    ECA,
    FEATURES,
    INPUT,
    Activation,
    Conv,
    Convolution,
    Dense,
    Dropout,
    GlobalPool,
    Init,
    Op,
    Operation,
    Padding,
    Parameter,
    Plan,
    Pool,
    Residual,
    Role,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.taps import Feature, Tap

__all__ = [
    "ECA",
    "FEATURES",
    "INPUT",
    "Activation",
    "Block",
    "Conv",
    "Convolution",
    "Dense",
    "Dropout",
    "Feature",
    "GlobalPool",
    "Init",
    "Op",
    "Operation",
    "Padding",
    "Parameter",
    "Plan",
    "Pool",
    "Residual",
    "Role",
    "SqueezeExcite",
    "StochasticDepth",
    "Tap",
    "WSConv",
    "unknown_operation",
]
