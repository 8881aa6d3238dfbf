"""FAULTS.md: the kill matrix and the detection limits as text."""

from __future__ import annotations

from collections.abc import Iterator

from nfspec.conformance.faults import FAULTS
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report.markdown import escaped
from nfspec.conformance.running.kill import KillMatrix


def faults_markdown(matrix: KillMatrix) -> str:
    """The report. Equal runs give equal text."""
    parts = (_head(matrix), _kills(matrix), _witnesses(matrix), _limits(matrix), _foot(matrix))
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _head(matrix: KillMatrix) -> Iterator[str]:
    survivors, idle = matrix.survivors, matrix.idle
    yield "# Seeded faults"
    yield ""
    yield (
        f"{len(matrix.kills)} faults on {', '.join(matrix.facts)}: "
        + (f"{len(survivors)} NOT KILLED." if survivors else "all killed.")
    )
    if idle:
        names = ", ".join(sorted({name for name, _ in idle}))
        yield f"{len(idle)} times a property killed nothing: {names}."
    yield ""
    yield "Each fault is injected in the worker, with everything else as in a clean run; the"
    yield "cases are the essential ones of `nfspec conform`. Given is the property that killed"
    yield "it, and how many times its bound the error was."
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kills(matrix: KillMatrix) -> Iterator[str]:
    columns = list(matrix.facts)
    yield _row(["fault", "what", *columns])
    yield _row(["---"] * (len(columns) + 2))
    for name, row in matrix.kills.items():
        cells = []
        for column in columns:
            kill = row[column]
            equivalent = FAULTS[name].equivalent
            if kill.property:
                refused = "refused" if kill.problem else f"{kill.ratio:.2g}"
                cells.append(f"{kill.property} {refused}")
            else:
                cells.append(f"equivalent: {equivalent}" if equivalent else "**SURVIVED**")
        yield _row([f"`{name}`", escaped(FAULTS[name].what), *cells])
    yield ""


def _witnesses(matrix: KillMatrix) -> Iterator[str]:
    if not matrix.witnesses:
        return
    columns = list(matrix.facts)
    yield "## Every property can fail"
    yield ""
    yield "For each property, a fault that it kills."
    yield ""
    yield _row(["property", "", *columns])
    yield _row(["---"] * (len(columns) + 2))
    for name, row in matrix.witnesses.items():
        cells = [f"`{row[c]}`" if row[c] else "**none**" for c in columns]
        yield _row([name, escaped(PROPERTIES[name].title), *cells])
    yield ""


def _limits(matrix: KillMatrix) -> Iterator[str]:
    if not matrix.limits:
        return
    subjects = list(matrix.limits[0]["limits"])
    yield "## Detection limits"
    yield ""
    yield "The least relative change, up or down, of 5e-1, 2e-1, 1e-1, ... that some of three cases"
    yield "sees, all larger ones being seen, too."
    yield ""
    yield _row(["scaled", "mode", "property", *subjects])
    yield _row(["---"] * (len(subjects) + 3))
    for row in matrix.limits:
        found = [row["limits"].get(subject) for subject in subjects]
        cells = ["none" if size is None else f"{size:.0e}" for size in found]
        yield _row([row["what"], row["mode"], row["property"], *cells])
    yield ""


def _foot(matrix: KillMatrix) -> Iterator[str]:
    yield "## Environment"
    yield ""
    for column, facts in matrix.facts.items():
        keras = f", keras {facts['keras']}" if "keras" in facts else ""
        yield f"- {column}: {facts['version']}{keras}, on {facts['device']}"
