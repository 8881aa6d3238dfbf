"""The results as JSON, as a table and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nfspec.benchmarks.inputs import plan_of
from nfspec.benchmarks.run import Result, ratio
from nfspec.benchmarks.works import READ, WORKS
from nfspec.markdown import table
from nfspec.plan import counting

RATED = ("forward", "forward-bf16", "step", "decode")  # works on a batch of images
HEADINGS = ("", "median", "range", "ratio", "to", "first call")
ALIGN = "<>>><>"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def row(result: Result, results: Sequence[Result]) -> list[str]:
    """A line of the table; an error stands where the numbers would."""
    if result.error or not result.seconds:
        return [result.name, result.error or "not measured", "", "", "", ""]
    if result.memory is not None:
        memory = f"memory grew by {result.memory:.2f} times the weights"
        return [result.name, _time(result.median), memory, "", "", ""]
    by = ratio(result, results)
    low, high = min(result.seconds), max(result.seconds)
    spread = f"{_time(low).removesuffix(' ms').removesuffix(' s')} to {_time(high)}"
    return [
        result.name,
        _time(result.median),
        spread,
        "" if by is None else f"{by:.2f}",
        "" if by is None else result.peer or "",
        _time(result.first),
    ]


def sections(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Results by work and setup, each with its heading."""
    parts: dict[str, list[Result]] = {}
    for result in results:
        setup = result.setup
        of = f"{setup.batch} x {setup.size} px" if setup.size else "newly drawn weights"
        network = ", ".join([setup.variant, *setup.changes, of])
        if setup.cores is not None:
            network += f", {setup.cores} core{'s' if setup.cores > 1 else ''}"
        title = WORKS.get(result.work, "building the model")
        parts.setdefault(f"{title}: {network}", []).append(result)
    return list(parts.items())


def beside(members: Sequence[Result]) -> list[list[str]]:
    """Times of generated sources over those of all others, as a table; empty without sources."""
    done = [result for result in members if result.median]
    sources = [result for result in done if " source" in result.name]
    others = [result for result in done if result not in sources]
    rows = [["time over that of", *(other.name for other in others)]]
    for source in sources:
        ratios = [f"{source.median / other.median:.2f}" for other in others]  # type: ignore[operator]
        rows.append([source.name, *ratios])
    return rows if sources and others else []


def share_of_peak(result: Result, sgemm: float) -> float | None:
    """FLOPs of a forward pass over what sgemm would do in its time."""
    if result.work != "forward" or not result.median:
        return None
    count = counting.count(plan_of(result.setup), result.setup.size)
    flops = 2 * count.macs * result.setup.batch
    return flops / result.median / 1e9 / sgemm


def data(results: Sequence[Result], machine: dict[str, Any]) -> dict[str, Any]:
    """All measurements, as JSON values."""
    return {
        "machine": machine,
        "results": [
            {
                **asdict(result),
                "median": result.median,
                "ratio": ratio(result, results),
                "images_per_second": (
                    images_of(result) / result.median
                    if result.median and result.work in RATED
                    else None
                ),
                "share_of_sgemm": share_of_peak(result, machine["sgemm_gflops"]),
            }
            for result in results
        ],
    }


def about(machine: dict[str, Any]) -> list[str]:
    """The machine in two lines."""
    packages = [f"{k} {v}" for k, v in machine.items() if k in PACKAGES]
    return [
        f"{machine['processor']}, {machine['cores']} cores; sgemm "
        f"{machine['sgemm_gflops']:.0f} GFLOP/s, copies {machine['copy_gbs']:.0f} GB/s",
        ", ".join(packages),
    ]


PACKAGES = ("keras", "jax", "torch", "tensorflow", "timm", "optax", "flax", "mlx")


def rooflines(results: Sequence[Result], machine: dict[str, Any]) -> list[list[str]]:
    """Forward passes against the machine's sgemm."""
    rows = [["forward pass", "images/s", "GFLOP/s", "of sgemm"]]
    for result in results:
        share = share_of_peak(result, machine["sgemm_gflops"])
        if share is None or result.median is None:
            continue
        setup = result.setup
        rows.append(
            [
                f"{result.name}, {setup.variant}, {setup.batch} x {setup.size} px",
                f"{setup.batch / result.median:.1f}",
                f"{share * machine['sgemm_gflops']:.0f}",
                f"{share:.0%}",
            ]
        )
    return rows


def images_of(result: Result) -> int:
    """Images in a run."""
    return result.setup.batch * (READ if result.work == "decode" else 1)


def rates(results: Sequence[Result], machine: dict[str, Any]) -> list[list[str]]:
    """Images a second that were read, and those for each core that was used."""
    rows = [["reading images", "images/s", "a core"]]
    for result in results:
        if result.work == "decode" and result.median:
            cores = 1 if result.peer is None else result.setup.cores or machine["cores"]
            rate = images_of(result) / result.median
            rows.append([result.name, f"{rate:.0f}", f"{rate / cores:.0f}"])
    return rows


def markdown(results: Sequence[Result], machine: dict[str, Any]) -> str:
    """The page BENCH.md."""
    lines = ["# Benchmarks", "", *(f"{line}  " for line in about(machine)), ""]
    lines += ["Medians; contestants took turns. Compare within a table, and not between runs.", ""]
    for heading, members in sections(results):
        lines += [f"## {heading[0].upper()}{heading[1:]}", ""]
        lines += [*table(HEADINGS, (row(r, results) for r in members)), ""]
        if rows := beside(members):
            lines += [*table(rows[0], rows[1:]), ""]
    rows = rooflines(results, machine)
    if len(rows) > 1:
        lines += ["## Against the machine's sgemm", "", *table(rows[0], rows[1:]), ""]
    rows = rates(results, machine)
    if len(rows) > 1:
        lines += ["## Images a second", "", *table(rows[0], rows[1:]), ""]
    return "\n".join(lines)
