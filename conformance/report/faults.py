"""FAULTS.md: the kill matrix and the detection limits as text."""

from __future__ import annotations

from collections.abc import Iterator

from nfspec.conformance.cases.case import Case
from nfspec.conformance.faults import FAULTS
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report.markdown import escaped
from nfspec.conformance.running.kill import Kill, KillMatrix
from nfspec.markdown import table


def faults_markdown(matrix: KillMatrix) -> str:
    """The text of FAULTS.md. Equal runs give equal text."""
    parts = (
        _head(matrix),
        _kills(matrix),
        _alone(matrix),
        _witnesses(matrix),
        _limits(matrix),
        _foot(matrix),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _head(matrix: KillMatrix) -> Iterator[str]:
    survivors, idle = matrix.survivors, matrix.idle
    yield "# Seeded faults"
    yield ""
    if matrix.verdict == "NOTHING TRIED":
        yield "No column ran, so that no fault was tried."
    else:
        killed = f"{len(survivors)} NOT KILLED." if survivors else "all killed."
        yield f"{len(matrix.kills)} faults on {', '.join(matrix.facts)}: {killed}"
    if hidden := matrix.survivors_alone:
        yield f"Not killed where the network alone is offered: {', '.join(hidden)}."
    if idle:
        names = ", ".join(sorted({name for name, _ in idle}))
        yield f"{len(idle)} times a property killed nothing: {names}."
    yield ""
    yield "Each fault is injected in the worker, with everything else as in a clean run; the"
    yield "cases are the essential ones of `nfspec conform`. Given is the property that killed"
    yield "it, and how many times its bound the error was."
    yield ""


def _kills(matrix: KillMatrix) -> Iterator[str]:
    columns, survivors = list(matrix.facts), set(matrix.survivors)

    def end(name: str, column: str) -> str:
        kill = matrix.kills[name][column]
        if kill.property:
            return f"{kill.property} {'refused' if kill.problem else f'{kill.ratio:.2g}'}"
        if (name, column) in survivors:
            return "**SURVIVED**"
        return f"equivalent: {FAULTS[name].equivalent}"

    rows = (
        [f"`{name}`", escaped(FAULTS[name].what), *(end(name, column) for column in columns)]
        for name in matrix.kills
    )
    yield from table(["fault", "what", *columns], rows)
    yield ""


def _alone(matrix: KillMatrix) -> Iterator[str]:
    """The faults in a subject that offers `forward` and `block` and nothing else."""
    if not matrix.alone:
        return

    def end(name: str, kill: Kill) -> list[str]:
        if not kill.property:
            reason = FAULTS[name].alone or FAULTS[name].equivalent
            return [f"not seen: {escaped(reason)}" if reason else "**SURVIVED**", ""]
        case = Case.parse(kill.case or {})
        ratio = "refused" if kill.problem else f"{kill.ratio:.2g}"
        return [f"{kill.property} {ratio}", escaped(f"{case.spec}, {case.regime}")]

    killed = sum(bool(kill.property) for kill in matrix.alone.values())
    yield "## Where the network alone is offered"
    yield ""
    yield "The same faults in a subject that offers `forward` and `block` and nothing else, on"
    yield f"{matrix.alone_on}, with reduced networks: {killed} of {len(matrix.alone)} are"
    yield "killed. Of the others, the reason why a network's outputs do not show them. Given are"
    yield "the first property that killed it, and the network and regime of that case."
    yield ""
    rows = (
        [f"`{name}`", escaped(FAULTS[name].what), *end(name, kill)]
        for name, kill in matrix.alone.items()
    )
    yield from table(["fault", "what", "killed by", "case"], rows)
    yield ""


def _witnesses(matrix: KillMatrix) -> Iterator[str]:
    if not matrix.witnesses:
        return
    columns = list(matrix.facts)
    yield "## Every property can fail"
    yield ""
    yield "For each property, a fault that it kills."
    yield ""
    rows = (
        [
            name,
            escaped(PROPERTIES[name].title),
            *(f"`{row[column]}`" if row[column] else "**none**" for column in columns),
        ]
        for name, row in matrix.witnesses.items()
    )
    yield from table(["property", "", *columns], rows)
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
    rows = (
        [
            row["what"],
            row["mode"],
            row["property"],
            *(_size(row["limits"].get(subject)) for subject in subjects),
        ]
        for row in matrix.limits
    )
    yield from table(["scaled", "mode", "property", *subjects], rows)
    yield ""


def _size(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:.0e}"


def _foot(matrix: KillMatrix) -> Iterator[str]:
    yield "## Environment"
    yield ""
    for column, facts in matrix.facts.items():
        keras = f"keras {facts['keras']}, " if "keras" in facts else ""
        yield f"- {column}: {facts['version']}, {keras}on {facts['device']}"


def faults_lines(matrix: KillMatrix) -> list[str]:
    """The lines of a terminal: every gap in the proof, and the counts."""
    return [
        *(f"SURVIVED: {fault} on {column}" for fault, column in matrix.survivors),
        *(f"SURVIVED, the network alone offered: {name}" for name in matrix.survivors_alone),
        *(f"KILLED NOTHING: {name} on {column}" for name, column in matrix.idle),
        f"{len(matrix.kills)} faults, {len(matrix.survivors)} survivors, "
        f"{len(matrix.witnesses)} properties, {len(matrix.idle)} without a kill",
    ]
