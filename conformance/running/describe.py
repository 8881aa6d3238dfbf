"""A judged case in words: the value, the expected one, and the bound term by term."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.case import Case
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import (
    Array,
    Expectation,
    Expected,
    Finding,
    Judgement,
    Outputs,
)

MOST_NAMED = 6  # other outputs beyond their bounds that are named
EDGES = (0.01, 0.1, 0.5, 1.0, 10.0)  # of the ratios that elements are counted by


def describe(
    case: Case, judgement: Judgement, outputs: Outputs, expected: Expected, command: str
) -> str:
    """The worst finding of a case, and every other output that is beyond its bound.

    Args:
        case: The case.
        judgement, outputs, expected: The outputs as they were compared, and the comparison.
        command: The shell command that runs the case again.
    """
    worst = judgement.worst
    lines = [
        f"{case.property}: {PROPERTIES[case.property].title}",
        command,
        *_finding(worst, outputs, expected),
    ]
    others = [f for f in judgement.findings if f is not worst and f.ratio > 1.0]
    if others:
        named = [_short(f, outputs, expected) for f in others[:MOST_NAMED]]
        more = [f"and {len(others) - MOST_NAMED} more"] if len(others) > MOST_NAMED else []
        lines.append("also beyond their bounds: " + ", ".join([*named, *more]))
    return "\n".join(lines)


def infinite(finding: Finding, outputs: Outputs, expected: Expected) -> str:
    """The reason for an infinite ratio, as `Cell.infinite` has it; empty for a finite one."""
    if np.isfinite(finding.ratio):
        return ""
    output, wanted = outputs.get(finding.name), expected.outputs.get(finding.name)
    if output is None or wanted is None:
        return "no output"
    if output.shape != wanted.value.shape:
        return "another shape"
    return "the bits differ" if np.isfinite(output.astype(np.float64)).all() else "not finite"


def _short(finding: Finding, outputs: Outputs, expected: Expected) -> str:
    return f"{finding.name} ({infinite(finding, outputs, expected) or f'{finding.ratio:.3g}'})"


def _finding(finding: Finding, outputs: Outputs, expected: Expected) -> list[str]:
    name = finding.name
    if finding.problem:
        at = f" at {list(finding.at)}" if finding.at else ""
        return [f"{name}{at}: {finding.problem}"]
    wanted = expected.outputs[name]
    value = outputs[name].astype(np.float64)
    error = np.abs(value - wanted.value)
    if wanted.rms:
        rms, size = (float(np.sqrt((array**2).mean())) for array in (error, wanted.value))
        terms = {label: float(term) for label, term in wanted.terms.items()}
        head = [f"{name}: rms error {rms:.4g} of values with rms {size:.4g}"]
        return [*head, *_terms(terms, finding)]
    place = finding.at
    got, exact = float(value[place]), float(wanted.value[place])
    terms = {
        label: float(np.broadcast_to(term, value.shape)[place])
        for label, term in wanted.terms.items()
    }
    return [
        f"{name}{list(place)}: found {got:.9g}, expected {exact:.12g}",
        _error(float(error[place]), exact),
        *_terms(terms, finding),
        *_spread(error, wanted, finding),
    ]


def _error(error: float, exact: float) -> str:
    """An error in the unit that says most: units in the last place, the value, or by itself."""
    if exact == 0.0:
        return f"error {error:.4g}, where 0 is expected"
    if error > abs(exact):
        return f"error {error:.4g} ({error / abs(exact):.3g} times the value)"
    ulp = float(np.spacing(np.float32(abs(exact))))
    return f"error {error:.4g} ({error / ulp:.3g} units in the last place)"


def _terms(terms: dict[str, float], finding: Finding) -> list[str]:
    bound = sum(terms.values())
    if bound == 0.0:
        differ = "the bits differ" if finding.ratio > 0.0 else "the bits are the same"
        return [f"bound 0: the same bits were expected; {differ}"]
    return [
        f"bound {bound:.4g}, error / bound {finding.ratio:.4g}",
        *(f"  {label:<24} {term:.4g}" for label, term in terms.items()),
    ]


def _spread(error: Array, wanted: Expectation, finding: Finding) -> list[str]:
    """The spread of the ratios of all elements."""
    bound: NDArray[np.float64] = wanted.bound
    if not bound.any():
        return [f"{finding.over} of {error.size} elements differ"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(error == 0.0, 0.0, error / bound).ravel()
    bins = np.searchsorted(EDGES, np.nan_to_num(ratios, nan=np.inf))
    counts = np.bincount(bins, minlength=len(EDGES) + 1)
    edges = [f"{edge:g}" for edge in EDGES]
    ranges = [
        f"up to {edges[0]}",
        *(f"up to {edge}" for edge in edges[1:]),
        f"over {edges[-1]}",
    ]
    shown = [f"{n} {where}" for where, n in zip(ranges, counts, strict=True) if n]
    return [
        f"{finding.over} of {error.size} elements beyond their bound",
        f"elements by error / bound: {', '.join(shown)}",
    ]
