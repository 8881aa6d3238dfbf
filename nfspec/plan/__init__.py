"""A Plan: every number of a network, worked out from its Spec.

It imports `language` and the root.
"""

from nfspec.plan.plan import (
    ECA,
    FEATURES,
    INPUT,
    Activation,
    Block,
    Conv,
    Convolution,
    Dense,
    Dropout,
    GlobalPool,
    Init,
    Op,
    Padding,
    Parameter,
    Plan,
    Pool,
    Residual,
    Role,
    SqueezeExcite,
    StochasticDepth,
    Tap,
    WSConv,
)

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
    "GlobalPool",
    "Init",
    "Op",
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
]
