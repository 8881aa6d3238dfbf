"""The results as one picture: ratios to peers, and times of forward passes over their FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfspec.benchmarks.inputs import plan_of
from nfspec.benchmarks.report import share_of_peak
from nfspec.benchmarks.run import Result, ratio
from nfspec.errors import InputError
from nfspec.plan.counting import count


def plot(results: Sequence[Result], machine: dict[str, Any], path: Path) -> None:
    """Write a PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("matplotlib not installed; run: pip install matplotlib") from error

    bars = [(r, by) for r in results if (by := ratio(r, results)) is not None]
    figure = Figure(figsize=(9, max(3.0, 1.0 + 0.35 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh([f"{r.work}: {r.name} / {r.peer}" for r, _ in bars], [by for _, by in bars])
    left.axvline(1.0, color="black", linewidth=0.8)
    left.invert_yaxis()
    left.set_xlabel("time over the peer's")
    for name in dict.fromkeys(r.name for r in results):
        points = sorted(
            (2e-9 * count(plan_of(r.setup), r.setup.size).macs * r.setup.batch, r.median)
            for r in results
            if r.name == name and r.work == "forward" and share_of_peak(r, 1.0) and r.median
        )
        if points:
            flops, seconds = zip(*points, strict=True)
            right.loglog(flops, seconds, "o-", label=name)
    right.set_xlabel("GFLOP in a forward pass")
    right.set_ylabel("seconds")
    if right.lines:
        low, high = right.get_xlim()
        peak = machine["sgemm_gflops"]
        right.plot([low, high], [low / peak, high / peak], "k:", label="sgemm")
        right.legend(fontsize="small")
    figure.savefig(path, dpi=120)
