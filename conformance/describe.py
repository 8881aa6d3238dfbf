"""A judged case in words: what was found, what was expected, and the bound term by term."""

from __future__ import annotations

import shlex

import numpy as np

from nfspec.conformance.case import Case
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import Expected, Finding, Judgement, Outputs
from nfspec.conformance.results import HISTOGRAM_EDGES, histogram


def replay_command(case: Case) -> str:
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
        lines = [f"{name}: rms error {rms:.4g} of values with rms {size:.4g}"]
        terms = {label: float(term) for label, term in wanted.terms.items()}
    else:
        at = finding.at
        found, exact = float(value[at]), float(wanted.value[at])
        ulp = float(np.spacing(np.float32(abs(exact))))
        lines = [
            f"{name}{list(at)}: found {found:.9g}, expected {exact:.12g}",
            f"error {error[at]:.4g} ({error[at] / ulp:.3g} units in the last place)",
        ]
        terms = {
            label: float(np.broadcast_to(term, value.shape)[at])
            for label, term in wanted.terms.items()
        }
    total = sum(terms.values())
    lines.append(f"bound {total:.4g}, error / bound {finding.ratio:.4g}")
    lines += [f"  {label:<24} {term:.4g}" for label, term in terms.items()]
    if not wanted.rms and total:
        lines += _spread(error, np.broadcast_to(wanted.bound, error.shape), finding)
    return lines


def _spread(error: np.ndarray, bound: np.ndarray, finding: Finding) -> list[str]:
    """How the ratios of all elements are spread, by powers of four."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(error == 0.0, 0.0, error / bound).ravel()
    counts = histogram(ratios.tolist())
    labels = ["less", *(f"{edge:.2g}" for edge in HISTOGRAM_EDGES)]
    shown = [f"{label}: {n}" for label, n in zip(labels, counts, strict=True) if n]
    return [
        f"{finding.over} of {error.size} elements beyond their bound",
        f"elements by error / bound from: {', '.join(shown)}",
    ]
