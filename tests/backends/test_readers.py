"""Every kind of operation has a layer, and an unknown one stops the compiler."""

from dataclasses import dataclass
from typing import get_args

import pytest

from nfspec import plan as p
from nfspec.backends.compiler import layer_of

CONV = {"in_channels": 8, "out_channels": 8, "kernel": 3, "stride": 1, "groups": 1}
OPERATIONS = [
    p.WSConv(
        "op", ("x",), **CONV, padding="same", eps=1e-4, eps_rule="max", ddof=0, dtype="float32",
        gamma=1.0, kernel_init=p.Init("normal", 0.1), gain_init=1.0,
    ),
    p.Conv("op", ("x",), **CONV, padding="same", activation="relu"),
    p.Activation("op", ("x",), "silu", 0.01, 1.8, 1.0, "after"),
    p.Pool("op", ("x",), "max", 3, 2, "same"),
    p.SqueezeExcite("op", ("x",), 8, 4, 2.0, "relu", 0.01, 1.0, "normal"),
    p.ECA("op", ("x",), 8, 3, 2.0),
    p.StochasticDepth("op", ("x",), 0.5, True),
    p.Residual("op", ("x", "shortcut"), "op", 0.2, True, 0.0),
    p.GlobalPool("op", ("x",)),
    p.Dropout("op", ("x",), 0.5),
    p.Dense("op", ("x",), 8, 3, 0.01),
]  # fmt: skip


@dataclass(frozen=True)
class Blur(p.Op):
    """A kind that no reader knows."""


def test_these_are_all_kinds():
    assert {type(op) for op in OPERATIONS} == set(get_args(p.Operation))


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: type(op).__name__)
def test_every_kind_has_a_layer(op):
    layer = layer_of(op, "channels_last", "float32")
    assert layer.name == "op"


def test_a_kind_that_has_none_stops_the_compiler():
    with pytest.raises(TypeError, match=r"^nfspec\.compile does not know the operation Blur"):
        layer_of(Blur("blur", ("x",)), "channels_last", "float32")
