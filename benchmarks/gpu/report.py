"""The page of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nfspec.benchmarks.gpu.items import WORKS
from nfspec.benchmarks.gpu.machine import Machine
from nfspec.benchmarks.gpu.running import Entry, Record
from nfspec.benchmarks.inputs import plan_of
from nfspec.benchmarks.profiling import by_kind
from nfspec.benchmarks.works import Setup
from nfspec.cost import roofline
from nfspec.markdown import table
from nfspec.plan import counting

LISTED = 8  # kernels of a profile that are named
GIB = 2**30


def markdown(machine: Machine, entries: Sequence[Entry], lacking: Mapping[str, list[str]]) -> str:
    """The page REPORT.md."""
    lines = ["# A GPU measured" if machine.device == "gpu" else "# The same path on a CPU", ""]
    lines += [*_about(machine), ""]
    lines += _proofs(entries)
    rates = _rates(entries)
    if rates:
        lines += ["## What the device does at most", ""]
        lines += [*table(("", "measured"), [[name, text] for name, _, text in rates]), ""]
    peaks = {name: rate for name, rate, _ in rates}
    lines += _works(entries, peaks)
    lines += _clipping(entries, peaks)
    lines += _profiles(entries)
    lines += _missing(machine, entries, lacking)
    return "\n".join(lines)


def _about(machine: Machine) -> Iterator[str]:
    yield f"{machine.card or ', '.join(sorted({*machine.backends.values()}))}, {machine.date}  "
    yield ", ".join(f"{name} {number}" for name, number in machine.versions.items())


def _results(entries: Sequence[Entry], start: str) -> list[Record]:
    return [record for e in entries if e.item.startswith(start) for record in e.results]


def _proofs(entries: Sequence[Entry]) -> list[str]:
    lines: list[str] = []
    runs = _results(entries, "conformance")
    columns = runs[-1].get("columns", {}) if runs else {}
    if columns:
        rows = [
            [
                column,
                ", ".join(f"{n} {verdict}" for verdict, n in found["verdicts"].items()),
                f"{float(found['worst']):.2g} ({found['worst_property']})",
            ]
            for column, found in columns.items()
        ]
        lines += ["## Conformance", "", *table(("", "properties", "worst error / bound"), rows), ""]
        lines += [
            f"- {column}: {failure}"
            for column, found in columns.items()
            for failure in found["failures"]
        ]
        lines += [""] if lines[-1] else []
    elif runs:
        said = runs[-1].get("error") or "nothing was judged"
        lines += ["## Conformance", "", said, ""]
    faults = [record for record in _results(entries, "faults") if "fault" in record]
    if faults:
        names = list(dict.fromkeys(c for record in faults for c in record["found_by"]))
        rows = [
            [record["fault"], *(record["found_by"].get(name) or "NOTHING" for name in names)]
            for record in faults
        ]
        lines += ["Faults, and the property that found each:", ""]
        lines += [*table(("fault", *names), rows), ""]
    return lines


def _rates(entries: Sequence[Entry]) -> list[tuple[str, float, str]]:
    """Precision, or "copy", to operations or bytes in a second, and the same in words."""
    rates = []
    for record in _results(entries, "peak"):
        if "median" not in record:
            continue
        options, precision = record["options"], record["setup"]["precision"]
        if record["contestant"] == "copy":
            rate = 2 * options["size"] / record["median"]
            rates.append(("copy", rate, f"{rate / 1e9:,.0f} GB/s, read and written"))
        else:
            rate = 2 * options["side"] ** 3 / record["median"]
            rates.append((precision, rate, f"{rate / 1e12:.3g} TFLOP/s, {options['side']} rows"))
    return rates


def _flops(record: Record) -> float:
    """Operations of a forward pass or of a step, without clipping and the update."""
    setup = _setup(record)
    if record["make"].endswith("step"):
        works = roofline.works(plan_of(setup), setup.batch, setup.size)
        return float(sum(work.flops for work in works))
    return 2.0 * counting.count(plan_of(setup), setup.size).macs * setup.batch


def _setup(record: Record) -> Setup:
    return Setup(**{**record["setup"], "changes": tuple(record["setup"]["changes"])})


def _works(entries: Sequence[Entry], peaks: Mapping[str, float]) -> list[str]:
    """A table for each work, side and precision: a row for each contestant and batch."""
    lines: list[str] = []
    for work, words in WORKS.items():
        parts: dict[tuple[int, str], list[Record]] = {}
        for record in _results(entries, f"{work}-"):
            if "setup" in record:
                setup = record["setup"]
                parts.setdefault((setup["size"], setup["precision"]), []).append(record)
        for (size, precision), records in parts.items():
            variant = records[0]["setup"]["variant"]
            title = f"{words[0].upper()}{words[1:]}, {variant}, {size} px, {precision}"
            rows = [_row(record, records, peaks.get(precision)) for record in records]
            head = ("", "images", "time", "images/s", "of the peer", "memory", "of the peak",
                    "first")  # fmt: skip
            lines += [f"## {title}", "", *table(head, rows), ""]
    return lines


def _row(record: Record, records: Sequence[Record], peak: float | None) -> list[str]:
    """A line of a table; an error stands where the numbers would."""
    if "median" not in record:
        said = "no memory left" if record.get("out_of_memory") else record["error"]
        return [record["contestant"], str(record["batch"]), _cell(said), *[""] * 5]
    ratio = ""
    for other in records:
        same = other["contestant"] == record["peer"] and other["batch"] == record["batch"]
        if same and "median" in other:
            ratio = f"{record['median'] / other['median']:.2f} of {record['peer']}"
    used, seconds = record["peak"], record["median"]
    return [
        record["contestant"],
        str(record["batch"]),
        f"{1e3 * seconds:.1f} ms",
        f"{record['batch'] / seconds:,.0f}",
        ratio,
        "" if used is None else f"{used / GIB:.1f} GiB",
        "" if peak is None else f"{_flops(record) / seconds / peak:.0%}",
        f"{record['first']:.0f} s",
    ]


def _clipping(entries: Sequence[Entry], peaks: Mapping[str, float]) -> list[str]:
    rows = []
    for work, words, moved in (
        ("agc-", "AGC", 12),  # parameters and gradients are read, gradients written
        ("optimizer-", "AGC and SGD", 28),  # and then all read, parameters and momentum written
    ):
        records = _results(entries, work)
        for record in records:
            if "median" not in record:
                rows.append([words, record.get("contestant", ""), _cell(record["error"]), "", ""])
                continue
            ratio = _row(record, records, None)[4]
            share = ""
            if "copy" in peaks:
                least = moved * counting.parameter_count(plan_of(_setup(record))) / peaks["copy"]
                share = f"{least / record['median']:.0%}"
            time = f"{1e3 * record['median']:.2f} ms"
            rows.append([words, record["contestant"], time, ratio, share])
    if not rows:
        return []
    head = ("", "", "time", "of the peer", "of the bandwidth")
    return ["## Clipping and update", "", *table(head, rows), ""]


def _profiles(entries: Sequence[Entry]) -> list[str]:
    lines: list[str] = []
    for record in _results(entries, "kernels-"):
        name, batch = record.get("contestant", ""), record.get("batch", "")
        if "kernels" not in record:
            lines += [f"- {name}: {record['error']}", ""]
            continue
        total = sum(t for t, _ in record["kernels"].values()) or 1.0
        rows = [
            [kind, f"{t:.2f} ms", f"{t / total:.0%}", f"{n:.0f}"]
            for kind, (t, n) in by_kind(record["kernels"]).items()
        ]
        lines += [f"## Kernels of a step: {name}, {batch} images", ""]
        lines += [*table(("kind", "time", "share", "launches"), rows), ""]
        longest = [each for each in record["kernels"].items() if each[0] != "others"][:LISTED]
        lines += [f"- {t:.2f} ms in {n:.0f}: `{_cell(name)[:100]}`" for name, (t, n) in longest]
        lines += [""]
    return lines


def _missing(
    machine: Machine, entries: Sequence[Entry], lacking: Mapping[str, list[str]]
) -> list[str]:
    lines = ["## What is not here", ""]
    lines += [f"- {sentence}." for sentence in machine.absent]
    lines += [f"- {name}: needs {' and '.join(needs)}." for name, needs in lacking.items()]
    begun = [entry.title for entry in entries if entry.results and not entry.finished]
    not_begun = [entry.title for entry in entries if not entry.results and not entry.finished]
    lines += [f"- Time was over before this was finished: {'; '.join(begun)}."] if begun else []
    lines += [f"- Time was over before this: {'; '.join(not_begun)}."] if not_begun else []
    lines += [
        f"- {entry.title}: {_cell(record['error'])}"
        for entry in entries
        for record in entry.results
        if "error" in record and "setup" not in record
    ]
    return [*lines, ""] if len(lines) > 2 else []


def _cell(text: Any) -> str:
    """A text of others in one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")[:300]
