"""A judged case in words: the value, the expected one, and the bound term by term."""

from __future__ import annotations

import shlex

import numpy as np

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import HISTOGRAM_EDGES, histogram
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import Array, Expected, Finding, Judgement, Outputs


def replay_command(case: Case) -> str:
    """The shell command that runs a case again."""
    return f"nfspec replay {shlex.quote(case.line())}"


def describe(case: Case, judgement: Judgement, outputs: Outputs, expected: Expected) -> str:
    """The worst finding of a case, and every other output that is beyond its bound."""
    worst = judgement.worst
    lines = [
        f"{case.property}: {PROPERTIES[case.property].title}",
        replay_command(case),
        *_finding(worst, outputs, expected),
    ]
    others = [f for f in judgement.findings if f is not worst and f.ratio > 1.0]
    if others:
        lines.append("also beyond their bounds: " + ", ".join(_short(f) for f in others[:20]))
    return "\n".join(lines)


def _short(finding: Finding) -> str:
    return f"{finding.name} ({finding.ratio:.3g})"


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
    ulp = float(np.spacing(np.float32(abs(exact))))
    terms = {
        label: float(np.broadcast_to(term, value.shape)[place])
        for label, term in wanted.terms.items()
    }
    return [
        f"{name}{list(place)}: found {got:.9g}, expected {exact:.12g}",
        f"error {error[place]:.4g} ({error[place] / ulp:.3g} units in the last place)",
        *_terms(terms, finding),
        *_spread(error, wanted.bound, finding),
    ]


def _terms(terms: dict[str, float], finding: Finding) -> list[str]:
    bits = "" if terms else ": the same bits are expected"
    return [
        f"bound {sum(terms.values()):.4g}{bits}, error / bound {finding.ratio:.4g}",
        *(f"  {label:<24} {term:.4g}" for label, term in terms.items()),
    ]


def _spread(error: Array, bound: Array, finding: Finding) -> list[str]:
    """The spread of the ratios of all elements, by powers of two."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(error == 0.0, 0.0, error / bound).ravel()
    counts = histogram(ratios.tolist())
    labels = ["less", *(f"{edge:.2g}" for edge in HISTOGRAM_EDGES)]
    shown = [f"{label}: {n}" for label, n in zip(labels, counts, strict=True) if n]
    return [
        f"{finding.over} of {error.size} elements beyond their bound",
        f"elements by error / bound from: {', '.join(shown)}",
    ]
