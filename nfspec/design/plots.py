"""Pictures: signal propagation plots (Brock et al. 2021, arXiv:2101.08692 §2), and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfspec.design.candidates import Candidate, cost_of
from nfspec.design.signal import Propagation
from nfspec.training.plots import blank, label, save

WIDE = 30.0  # a range of values, largest over smallest, that is drawn on a logarithmic axis


def plot(signals: Mapping[str, Propagation], path: Path) -> None:
    """Write a PNG of squared channel means, channel variances and residual variances by block.

    Dots are the last blocks of stages; dashed lines are expected variances.

    Args:
        signals: Name of each network to its signal.
        path: File to write.

    Raises:
        InputError: matplotlib is not installed.
        OSError: The file cannot be written; `filename` is `path`.
    """
    figure = blank(12, 4)
    means, variances, branches = figure.subplots(1, 3)
    for number, (name, signal) in enumerate(signals.items()):
        rows, look = signal.signals, {"color": f"C{number}", "linewidth": 1.2}
        stages = [block.stage for block in signal.plan.blocks]
        ends = [n for n, stage in enumerate(stages, 1) if stage != (*stages, -1)[n]]
        blocks = list(range(len(rows)))
        means.plot(blocks, [each.avg_sq_mean for each in rows], label=label(name), **look)
        expected = [each.expected_variance for each in rows]
        variances.plot(blocks, expected, "--", **{**look, "linewidth": 0.8})
        found = [each.avg_var for each in rows]
        variances.plot(blocks, found, markevery=ends, marker=".", mfc="k", mec="k", **look)
        inside = [each.res_avg_var for each in rows[1:]]
        if None not in inside:
            branches.plot(blocks[1:], inside, **look)
    for axes in (means, variances, branches):
        axes.set(xlabel="block; 0 is the stem")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _scale(axes)
    means.set(title="squared channel mean")
    variances.set(title="channel variance (- - expected)")
    branches.set(title="variance of the residual branch")
    means.legend(fontsize="small")
    save(figure, path)


def _scale(axes: Any) -> None:
    """Draw values that differ much on a logarithmic axis, and others from 0."""
    values = [float(y) for line in axes.lines for y in line.get_ydata() if y > 0]
    if values and max(values) > WIDE * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0.0, None)


def plot_candidates(rows: Sequence[Candidate], best: set[int], path: Path) -> None:
    """Write a PNG of top-1 over cost, or, where no top-1 is known, of parameters over cost.

    Args:
        rows: The candidates.
        best: Numbers of those on the Pareto front, which is drawn.
        path: File to write.

    Raises:
        InputError: matplotlib is not installed.
        OSError: The file cannot be written; `filename` is `path`.
    """
    figure = blank(9, 6)
    axes = figure.subplots()
    scored = [row for row in rows if row.top1 is not None]
    places = {
        n: (cost_of(row), row.parameters if row.top1 is None else row.top1)
        for n, row in enumerate(rows)
        if row.top1 is not None or not scored
    }
    for data in dict.fromkeys(rows[n].data for n in places):
        of_data = [places[n] for n in places if rows[n].data == data]
        axes.plot(*zip(*of_data, strict=True), "o", label=label(data or "networks"))
        ends = sorted(places[n] for n in best if rows[n].data == data)
        if ends:
            axes.plot(*zip(*ends, strict=True), "-", color="grey", linewidth=0.8)
    for n, place in places.items():
        axes.annotate(
            label(rows[n].label), place, xytext=(4, 4), textcoords="offset points", fontsize="small"
        )
    device = next((name for row in rows for name in row.on), None)
    cost = "multiply-accumulates" if device is None else f"seconds of a step on one {device}"
    axes.set(xscale="log", xlabel=cost, ylabel="top-1" if scored else "parameters")
    if not scored:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    save(figure, path)
