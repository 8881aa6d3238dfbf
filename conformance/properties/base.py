"""A property: its cases, the request that a subject gets, and how the reply is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.conformance.bounds.bounded import Terms
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.corners import SMALL_SIDES
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.target import Target

Array = NDArray[np.float64]
Outputs = Mapping[str, NDArray[Any]]
# The work that a worker does for a property; `nfspec.conformance.workers.server` says how.
Work = Literal[
    "call", "vjp", "twice", "network", "block", "drop", "ways", "folded", "train", "step", "weights"
]
ALL_MODES = tuple(MODES)
FULL_MODES = ("f32", "tf32")


@dataclass(frozen=True)
class Expectation:
    """The exact value of one output, and the terms of its bound.

    Terms broadcast against the value. Where they are all 0, the bits of the value in float32 are
    expected. With `rms`, it is the root mean square over all elements that is bounded.
    """

    value: Array
    terms: Terms = field(default_factory=dict)
    rms: bool = False

    @property
    def bound(self) -> Array:
        zero = np.zeros(() if self.rms else self.value.shape)
        return sum((np.asarray(term) for term in self.terms.values()), start=zero)


@dataclass(frozen=True)
class Expected:
    """The expected outputs of a case.

    Attributes:
        outputs: The outputs that are judged, by name; a subject may leave out those of `optional`.
        met: Regimes that the case met, for coverage.
        optional: Names that need not be there; at least one output must.
    """

    outputs: dict[str, Expectation]
    met: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One output, judged.

    Attributes:
        name: Name of the output.
        ratio: The largest |error| / bound; infinite where a value is not finite, a shape is not
            as expected, or bits differ that must not.
        at: Index of that element; empty for an rms.
        problem: A fault besides a large ratio.
        over: Number of elements beyond their bound.
    """

    name: str
    ratio: float
    at: tuple[int, ...] = ()
    problem: str = ""
    over: int = 0


def judge_output(name: str, output: NDArray[Any] | None, wanted: Expectation) -> Finding:
    """Compare one output with the expected one; None where the reply lacks it."""
    if output is None:
        return Finding(name, np.inf, problem="not in the reply")
    if output.shape != wanted.value.shape:
        problem = f"expected shape {wanted.value.shape}; found {output.shape}"
        return Finding(name, np.inf, problem=problem)
    value = output.astype(np.float64)
    if not np.isfinite(value).all():
        at = np.unravel_index(int(np.argmin(np.isfinite(value))), value.shape)
        count = int((~np.isfinite(value)).sum())
        problem = f"{count} of {value.size} values are not finite"
        return Finding(name, np.inf, tuple(map(int, at)), problem, count)
    error, bound = np.abs(value - wanted.value), wanted.bound
    if wanted.rms:
        distance = float(np.sqrt((error**2).mean()))
        return Finding(name, _ratio(np.array(distance), np.array(float(bound))).item())
    ratios = _ratio(error, bound)
    if not ratios.size:
        return Finding(name, 0.0)
    at = np.unravel_index(int(ratios.argmax()), ratios.shape)
    return Finding(name, float(ratios[at]), tuple(map(int, at)), over=int((ratios > 1.0).sum()))


def _ratio(error: Array, bound: Array) -> Array:
    """error / bound, 0 where there is no error, infinite where the bound is no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0.0, 0.0, error / bound)
    return np.where(np.isnan(ratio) | np.isnan(bound), np.inf, ratio)


@dataclass(frozen=True)
class Judgement:
    """A case, judged: the findings, and the worst of them."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding:
        return max(self.findings, key=lambda finding: finding.ratio)

    @property
    def ratio(self) -> float:
        return self.worst.ratio


def judge(outputs: Outputs, expected: Expected) -> Judgement:
    """Compare a reply with the expected outputs."""
    wanted = {
        name: expectation
        for name, expectation in expected.outputs.items()
        if name in outputs or name not in expected.optional
    }
    if not wanted:
        return Judgement((Finding("outputs", np.inf, problem="none in the reply"),))
    return Judgement(tuple(judge_output(n, outputs.get(n), e) for n, e in wanted.items()))


@dataclass(frozen=True)
class Property:
    """A statement about implementations that cases can refute.

    Attributes:
        id, tier, title: Its id, level and name in reports.
        request: The work that a worker does.
        method: The subject's method that does it.
        cases: Function that gives the essential cases of a target: one for each description and
            regime.
        calls: The arrays of a case, one dict for each call; a pure function of the case.
        expect: Function that gives the right outputs.
        modes: Modes in which it holds.
        must: Regimes that a run has to meet, given the essential cases.
        sent: True if the parent sends the arrays, because making them takes the reference.
        draws: True if a run draws more cases, of other seeds and regimes.
        of_network: The right outputs of another network than that of the case, where it is about
            one: see `nfspec.conformance.properties.networks.Network`.
        reduce: Function of the outputs, applied before they are compared.
    """

    id: str
    tier: int
    title: str
    request: Work
    method: str
    cases: Callable[[Target], Iterable[Case]]
    calls: Callable[[Case], list[Arrays]]
    expect: Callable[[Case, list[Arrays]], Expected]
    modes: tuple[str, ...] = ALL_MODES
    must: Callable[[list[Case]], frozenset[str]] = lambda cases: frozenset()
    sent: bool = False
    draws: bool = True
    of_network: Callable[[Any, Case, list[Arrays]], Expected] | None = None
    reduce: Callable[[Case, list[Arrays], Outputs], Outputs] = lambda case, calls, outputs: outputs


def wide(arrays: Arrays) -> dict[str, Array]:
    return {name: value.astype(np.float64) for name, value in arrays.items()}


def spread(
    property_id: str,
    ops: Iterable[Any],
    regimes: tuple[str, ...],
    shape: Callable[[Any], tuple[int, ...]],
) -> list[Case]:
    """A case for each operation, regimes taking turns, and for each regime at least one."""
    several = list(ops)
    if not several:
        return []
    count = max(len(several), len(regimes))
    return [
        Case(
            property_id,
            seed=i,
            regime=regimes[i % len(regimes)],
            op=several[i % len(several)],
            shape=shape(several[i % len(several)]),
        )
        for i in range(count)
    ]


def small_images(
    property_id: str,
    ops: Iterable[Any],
    regime: str,
    shape: Callable[[Any], tuple[int, ...]],
) -> list[Case]:
    """Cases of a single image of `SMALL_SIDES`, or of as many pixels as a window where nothing is
    padded: for the first operation of each window, stride and padding, or kind."""
    distinct: dict[Any, Any] = {}
    for op in ops:
        distinct.setdefault(_window(op), op)
    cases: dict[Case, None] = {}
    for op in distinct.values():
        least = _window(op)[1] if getattr(op, "padding", "") == "valid" else 1
        for height, width in SMALL_SIDES:
            sides = max(height, least), max(width, least)
            cases[Case(property_id, 0, regime, op=op, shape=(1, *sides, shape(op)[-1]))] = None
    return list(cases)


def _window(op: Any) -> tuple[Any, ...]:
    if isinstance(op, p.WSConv):
        return (type(op), op.extent, op.stride, op.padding, op.dilation)
    if isinstance(op, p.Pool):
        return (op.kind, op.window, op.stride, op.padding)
    return (type(op),)


def all_regimes(cases: list[Case]) -> frozenset[str]:
    """Each regime of the essential cases has to be met."""
    return frozenset(case.regime for case in cases)
