"""Detection limits: the smallest fault of a kind that is still seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from threadpoolctl import threadpool_limits

from nfspec import plan as p
from nfspec.conformance.cases.case import Case, Clip
from nfspec.conformance.cases.corners import CONV
from nfspec.conformance.properties.exact import image
from nfspec.conformance.running.answers import started
from nfspec.conformance.running.kill import attempt
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.worker import Worker
from nfspec.plan.activations import DEEPMIND_GAMMA

# From the largest down: 0.5, 0.2, 0.1, 0.05, ..., 1e-7.
SIZES = tuple(float(f"{d}e-{k}") for k in range(1, 8) for d in (5, 2, 1))
SEEDS = range(3)  # cases that may see it


@dataclass(frozen=True)
class Probe:
    """A parameter of an operation that is scaled by 1 + size and by 1 - size."""

    parameter: str
    property: str
    what: str
    op: Any
    shape: tuple[int, ...] = ()
    regime: str = "normal"


def probes() -> list[Probe]:
    """The gain of convs by fan-in, lambda of AGC by the elements in a unit, gamma, alpha."""
    several = []
    for kernel, channels in ((1, 4), (3, 4), (3, 16), (3, 64), (1, 1536), (3, 256), (3, 512)):
        op = replace(CONV, kernel=kernel, in_channels=channels)
        what = f"gain of a WS conv, fan-in {op.fan_in}"
        several.append(Probe("gain", "WS-01", what, op, image(op)))
    for shape in ((24,), (1, 1, 64, 8), (3, 3, 64, 8), (3, 3, 512, 8)):
        clip = Clip("kernel", shape, "squeeze", 0.01, 1e-3)
        what = f"lambda of AGC, {math.prod(shape) // clip.rule.units} elements in a unit"
        several.append(Probe("lambda", "AGC-01", what, clip, regime="large"))
    for kind in ("gelu_tanh", "silu", "relu"):
        act = p.Activation("op", ("x",), kind, 0.01, DEEPMIND_GAMMA[kind], 1.0, "after")
        several.append(Probe("gamma", "ACT-01", f"gamma of {kind}", act, (4, 8, 8, 8)))
    add = p.Residual("op", ("x", "shortcut"), "op", 0.2, True, 0.0)
    several.append(Probe("alpha", "RES-01", "alpha", add, (2, 7, 6, 6)))
    return several


def _seen(worker: Worker, probe: Probe, mode: str, size: float) -> bool:
    """True if some case finds an error of +size in the parameter, and some case one of -size."""
    for sign in (1.0, -1.0):
        worker.fault = f"{probe.parameter}{sign * size:+.0e}"
        cases = (
            Case(probe.property, seed, probe.regime, mode, probe.op, probe.shape) for seed in SEEDS
        )
        kills = (attempt([worker], case).get(worker) for case in cases)
        if not any(kill is not None and kill.property for kill in kills):
            return False
    return True


def limit(worker: Worker, probe: Probe, mode: str) -> float | None:
    """The least of SIZES that is seen, where all larger ones are seen, too; None if none is."""
    low, high = -1, len(SIZES)  # SIZES[low] is seen, SIZES[high] is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _seen(worker, probe, mode, SIZES[middle]) else (low, middle)
    return None if low < 0 else SIZES[low]


def limits(
    settings: Settings, progress: Callable[[str], None] = lambda message: None
) -> list[dict[str, Any]]:
    """A row for each probe in each mode: what was scaled, mode, property, and each column's limit.

    Args:
        settings: Settings of a run: subjects, device, modes and timeout.
        progress: Called with each row.
    """
    rows = []
    for mode in settings.modes:
        with threadpool_limits(1), started(settings, mode) as workers:
            for probe in probes():
                of_subjects = {
                    worker.subject: limit(worker, probe, mode)
                    for worker in workers
                    if worker.given_up is None
                }
                row = {"what": probe.what, "mode": mode, "property": probe.property}
                rows.append({**row, "limits": of_subjects})
                progress(f"{probe.what}, {mode}: {of_subjects}")
    return rows
