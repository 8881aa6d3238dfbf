"""The corners of every field of an operation and of `Clip`: its ends, and where two fields meet.

The general grid is made of them, so that a new field cannot be without: a test requires corners of
every field that a case states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

from nfspec import plan as p
from nfspec.conformance.cases.case import NEUTRAL, Clip
from nfspec.language.fields import Kind, Unit
from nfspec.plan.activations import DEEPMIND_GAMMA

CONV = p.WSConv(
    "op", ("x",), in_channels=16, out_channels=8, kernel=3, stride=1, groups=1, padding="same",
    eps=1e-4, eps_rule="max", ddof=0, dtype="float32", gamma=1.0,
    kernel_init=NEUTRAL["kernel_init"], gain_init=1.0,
)  # fmt: skip
SE = p.SqueezeExcite("op", ("x",), 16, 8, 2.0, "relu", 0.01, 1.0, "normal")
ACTIVATION = p.Activation(
    "op", ("x",), "gelu_tanh", 0.02, DEEPMIND_GAMMA["gelu_tanh"], 1.0, "after"
)
AVERAGE = p.Pool("op", ("x",), "avg", 2, 2, "same")
ECA = p.ECA("op", ("x",), 24, 3, 2.0)
RESIDUAL = p.Residual("op", ("x", "shortcut"), "op", 0.2, True, 0.0)
MEAN = p.GlobalPool("op", ("x",))
DENSE = p.Dense("op", ("x",), 96, 10, 1.0)
DEPTH = p.StochasticDepth("op", ("x",), 0.25, True)
DROPOUT = p.Dropout("op", ("x",), 0.2)
CLIP = Clip("kernel", (3, 3, 16, 8), "squeeze", 0.01, 1e-3)

Changes = dict[str, Any]


def _values(name: str, *values: Any, **others: Any) -> tuple[Changes, ...]:
    """A corner for each value of a field, with other fields that they need."""
    return tuple({name: value, **others} for value in values)


# For each field the corners: its value, with what other fields need to be with it.
CORNERS: dict[Any, dict[str, tuple[Changes, ...]]] = {
    CONV: {
        "in_channels": (
            *_values("in_channels", 1, 2, kernel=1),  # fan-ins of 1, where no variance is, and 2
            *_values("in_channels", 1),
        ),
        "out_channels": _values("out_channels", 1),
        "kernel": (*_values("kernel", 1), *_values("kernel", 2, 4, stride=2)),
        "stride": (*_values("stride", 1), *_values("stride", 3, 4), {"stride": 3, "kernel": 1}),
        "groups": (
            {"groups": 1},
            {"groups": 16, "out_channels": 16},  # depthwise
            {"groups": 16, "out_channels": 32},  # of two outputs for each input
            {"groups": 8},  # of one output each
        ),
        "padding": _values("padding", "same", "symmetric", "valid"),
        "dilation": (
            *_values("dilation", 1, 4),
            *_values("dilation", 2, padding="symmetric", kernel=5),
            *_values("dilation", 2, padding="valid", groups=16, out_channels=16),
        ),
        "eps": _values("eps", 1e-10, 1.0),
        "eps_rule": (
            *_values("eps_rule", "max", "add", "add_to_std", "none"),
            *_values("eps_rule", "none", gamma=0.1, groups=16, out_channels=32),
            *_values("eps_rule", "none", in_channels=1, kernel=1),  # fan-in 1, which is not 0 here
        ),
        "ddof": _values("ddof", 0, 1),
        "dtype": _values("dtype", "float32", "compute"),
        "gamma": _values("gamma", 1.0, 0.1),
    },
    ACTIVATION: {
        "kind": tuple({"kind": kind, "gamma": DEEPMIND_GAMMA[kind]} for kind in get_args(Kind)),
        "slope": tuple({"slope": slope, "kind": "leaky_relu"} for slope in (0.0, 0.3, 1.0)),
        "gamma": _values("gamma", 1.0, 4.0),
        "beta": _values("beta", 1.0, 0.1),
        "beta_at": _values("beta_at", "after", "before", beta=0.9),
    },
    AVERAGE: {
        "kind": ({"kind": "avg"}, {"kind": "max", "window": 3}),
        "window": _values("window", 1, 2, 3),
        "stride": _values("stride", 1, 2, 3),
        "padding": (
            {"padding": "same"},
            {"padding": "symmetric", "kind": "max", "window": 3},
            {"padding": "valid"},
        ),
        "counted": _values("counted", True, False, stride=1),
    },
    SE: {
        "channels": _values("channels", 1, 96),
        "hidden": _values("hidden", 1, 24),
        "gain": _values("gain", 1.0, 2.0),
        "activation": _values("activation", "relu", "silu", "gelu_tanh"),
        "slope": ({"slope": 0.3, "activation": "leaky_relu"},),
        "gamma": _values("gamma", 1.0, 1.8, activation="silu"),
    },
    ECA: {
        "channels": (*_values("channels", 1, 2, kernel=5), *_values("channels", 96)),
        "kernel": _values("kernel", 1, 3, 9),
        "gain": _values("gain", 1.0, 2.0),
    },
    RESIDUAL: {
        "alpha": _values("alpha", 1.0, 0.25),
        "skip_gain": _values("skip_gain", True, False),
    },
    MEAN: {},
    DENSE: {
        "in_features": _values("in_features", 1, 96),
        "out_features": _values("out_features", 1, 10),
    },
    DEPTH: {"rate": _values("rate", 0.05, 0.9), "rescale": _values("rescale", True, False)},
    DROPOUT: {"rate": _values("rate", 0.05, 0.5)},
    CLIP: {
        "role": (
            {"role": "kernel"},
            *({"role": role, "shape": (24,)} for role in ("gain", "bias")),
            {"role": "skip_gain", "shape": ()},
            {"role": "head", "shape": (64, 10)},
        ),
        "shape": tuple(
            {"shape": shape, "unit": unit}
            for unit in get_args(Unit)
            # One output, one input of several outputs, one input channel, one element, a vector.
            for shape in ((64, 1), (1, 1, 64, 1), (1, 1, 1, 24), (3, 3, 1, 8), (1, 1), (5,), (1,))
        ),
        "unit": _values("unit", *get_args(Unit)),
        "clipping": _values("clipping", 1e-3, 1.0),
        "eps": _values("eps", 1e-10, 1.0),
    },
}
# Height and width of images smaller than most kernels.
SMALL_SIDES = ((1, 1), (2, 1))
# Fields that a case may state, and the kit's layers do not: they are of networks alone.
OF_NETWORKS = {p.SqueezeExcite: ("gate_only",), p.ECA: ("gate_only",), p.GlobalPool: ("scale",)}


def corners() -> Iterator[Any]:
    """Every corner of every field, as a description."""
    for base, of_fields in CORNERS.items():
        for several in of_fields.values():
            for changes in several:
                yield replace(base, **changes)
