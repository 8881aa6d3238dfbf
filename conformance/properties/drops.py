"""Properties of layers that drop at random: stochastic depth and dropout.

Single draws cannot be compared with a reference. Their frequencies are compared with the
probabilities instead, within a bound that chance alone practically never exceeds. The rest is
compared as elsewhere: the values that are kept, the factor that rescales them, that an image is
dropped as a whole, and that inference drops nothing.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.conformance.bounds.chance import chance
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.precision import MODES, narrow
from nfspec.conformance.cases.target import Target
from nfspec.conformance.properties.base import (
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
)

Mask = NDArray[np.bool_]
Statistics = dict[str, tuple[Array, Expectation]]  # by name: the value, and the expected one

SHAPES = {p.StochasticDepth: (2**14, 1, 2, 3), p.Dropout: (2**12, 64)}
DRAWS = tuple(f"{replica}/{step}" for replica in range(2) for step in range(2))


def add_event(statistics: Statistics, name: str, mask: Mask, probability: float) -> None:
    """Add the frequency of an event; `mask` says of each independent draw whether it happened."""
    terms = {"chance": np.asarray(chance(mask.size, probability))}
    statistics[name] = np.asarray(mask.mean()), Expectation(np.asarray(probability), terms)


def add_pairs(statistics: Statistics, name: str, gone: Mask, rate: float) -> None:
    """Add the frequency with which both of two neighbours are dropped, for each axis. Each element
    is in one pair only, so that pairs are independent."""
    for axis, size in enumerate(gone.shape):
        if size > 1:
            first, second = (np.take(gone, range(i, size - size % 2, 2), axis) for i in range(2))
            both = f"{name}, both of neighbours along axis {axis}"
            add_event(statistics, both, first & second, rate**2)
    half = len(gone) // 2
    twice = gone[:half] & gone[half : 2 * half]
    add_event(statistics, f"{name}, the same place of both halves of the batch", twice, rate**2)
    for part, which in ((gone[:half], "first"), (gone[half:], "second")):
        add_event(statistics, f"{name}, {which} half of the batch", part, rate)


def _kept(x: Array, y: Array, gone: Mask, factor: float) -> Array:
    """The largest relative error of the elements that are kept, which should be `factor * x`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(gone, 0.0, np.abs(y / (factor * x) - 1.0))
    return np.asarray(error.max())


def add_exact(statistics: Statistics, name: str, value: Any, bound: float = 0.0) -> None:
    """Add a value that should be 0, within a bound of rounding; chance plays no part in it."""
    terms = {"rounding": np.asarray(bound)} if bound else {}
    statistics[name] = np.asarray(value, np.float64), Expectation(np.zeros(()), terms)


def _layer(case: Case, x: Array, outputs: Outputs) -> Statistics:
    """The statistics of a layer, each with its expected value."""
    op = case.op
    whole = isinstance(op, p.StochasticDepth)
    u = (MODES[case.mode] if whole else MODES["f32"]).store
    factor = 1.0 / (1.0 - op.rate) if getattr(op, "rescale", True) else 1.0
    statistics: Statistics = {}
    masks = {}
    for name in DRAWS:
        y = outputs[name].astype(np.float64)
        gone = y == 0.0
        # Both the factor and the product are rounded.
        add_exact(statistics, f"{name} kept", _kept(x, y, gone, factor), 3.0 * u)
        if whole:
            flat = gone.reshape(len(gone), -1)
            add_exact(statistics, f"{name} dropped in part", (flat.any(1) & ~flat.all(1)).mean())
            gone = flat.all(1)
        masks[name] = gone
        add_event(statistics, f"{name} dropped", gone, op.rate)
        add_pairs(statistics, f"{name} dropped", gone, op.rate)
    for one, other in combinations(DRAWS, 2):
        both = masks[one] & masks[other]
        add_event(statistics, f"dropped in {one} and in {other}", both, op.rate**2)
    add_exact(statistics, "inference", np.abs(outputs["inference"].astype(np.float64) - x).max())
    return statistics


def values_of(statistics: Statistics) -> Outputs:
    """The values without the expected ones."""
    return {name: value for name, (value, _) in statistics.items()}


def _reduced_layer(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    x = calls[0]["x"].astype(np.float64)
    names = (*DRAWS, "inference")
    if any(name not in outputs or outputs[name].shape != x.shape for name in names):
        return {}
    return values_of(_layer(case, x, outputs))


def _expect_layer(case: Case, calls: list[Arrays]) -> Expected:
    x = calls[0]["x"].astype(np.float64)
    anything = _layer(case, x, dict.fromkeys((*DRAWS, "inference"), x))
    return Expected({k: e for k, (_, e) in anything.items()}, frozenset({case.regime}))


def _numbers(case: Case) -> list[Arrays]:
    """Inputs whose sizes are from 0.5 to 2: an output of 0 can only come from dropping."""
    rng = case.rng("x")
    x = rng.uniform(0.5, 2.0, case.shape) * rng.choice([-1.0, 1.0], case.shape)
    return [{"x": narrow(x.astype(np.float32), case.mode)}]


def _layers(number: int, title: str, kind: type[Any], method: str) -> Property:
    name = f"DROP-{number:02}"

    def cases(target: Target) -> list[Case]:
        return [
            Case(name, seed=i, op=op, shape=SHAPES[kind]) for i, op in enumerate(target.of(kind))
        ]

    return Property(
        id=name,
        tier=1,
        title=title,
        request="drop",
        method=method,
        cases=cases,
        calls=_numbers,
        expect=_expect_layer,
        reduce=_reduced_layer,
    )


DROP_01 = _layers(
    1,
    "stochastic depth: whole images, at its rate, each by itself; none in inference",
    p.StochasticDepth,
    "stochastic_depth",
)
DROP_02 = _layers(
    2,
    "dropout: elements, at its rate, each by itself; none in inference",
    p.Dropout,
    "dropout",
)

PROPERTIES = (DROP_01, DROP_02)
