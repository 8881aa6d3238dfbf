"""A run as a terminal shows it, in 80 columns: the table, and what is wrong in words."""

from __future__ import annotations

from nfspec.conformance.cases.results import Cell, Results
from nfspec.conformance.report import causes, messages, words
from nfspec.console import WIDTH, table

# Reasons for an infinite ratio, in a word.
SHORT = {
    "the bits differ": "bits",
    "not finite": "nan",
    "another shape": "shape",
    "no output": "none",
}


def short(cell: Cell | None) -> str:
    """A cell in a few characters: the worst ratio, with a mark if it fails, or the verdict."""
    if cell is None:
        return "."
    match cell.verdict:
        case "pass":
            return _size(cell)
        case "pass in part":
            return f"{_size(cell)} -"
        case "fail":
            return f"{_size(cell)} !"
        case "deviates":
            return f"{_size(cell)} d"
        case "not offered":
            return "-"
        case "compiles":
            return "compiles"
        case "missing":
            return "missing"
        case _:
            return f"{cell.verdict} {_size(cell)} !" if cell.cases else f"{cell.verdict}!"


def _size(cell: Cell) -> str:
    return SHORT.get(cell.infinite, f"{cell.worst:.2g}")


def _rows(results: Results) -> list[list[str]]:
    """A row for each property, a column for each subject and mode."""
    rows = [["property", *(column.name for column in results.columns)]]
    for info in results.properties:
        cells = [results.cell(info.id, column.name) for column in results.columns]
        if any(cells):
            rows.append([info.id, *map(short, cells)])
    return rows


def lines(results: Results) -> list[str]:
    """The table, in as many parts as 80 columns need."""
    rows = _rows(results)
    parts: list[list[int]] = [[]]
    for i in range(1, len(rows[0])):
        widths = [max(len(row[j]) for row in rows) + 2 for j in (0, *parts[-1], i)]
        if parts[-1] and sum(widths) > WIDTH:
            parts.append([])
        parts[-1].append(i)
    text = []
    for part in parts:
        chosen = [[row[0], *(row[i] for i in part)] for row in rows]
        text += [*table(chosen, "<" + ">" * len(part)), ""]
    return text


def shown(results: Results) -> list[str]:
    """A run from its answer on: the verdict, then the table, then the failures by cause."""
    return [*head(results), "", *lines(results), *failures(results)]


def head(results: Results) -> list[str]:
    """The verdict, and the sentences that go with it: answers, what is not offered, notes."""
    return [
        verdict(results),
        *causes.answers(results),
        *words.beside(results),
        *(f"note: {note}" for note in results.notes),
    ]


def failures(results: Results) -> list[str]:
    """The failures by cause, and the problems of the run."""
    text = []
    for cause in causes.causes(results):
        text += [cause.heading, ""]
        told = cause.cells[:1] if cause.reason else cause.cells
        for cell in told:
            text += [_line(cell)]
            text += [*_folded(cell.message), ""]
        if others := cause.cells[len(told) :]:
            text += ["for the same reason:", *(f"  {_line(cell)}" for cell in others), ""]
    for column in results.columns:
        if column.problem and results.verdict != "NOTHING JUDGED":  # which tells them itself
            text += [f"{column.name}: {messages.last_line(column.problem)}", ""]
    return [*text, *results.problems]


def _line(cell: Cell) -> str:
    return f"{cell.property} on {cell.column}: {words.verdict(cell)}"


def verdict(results: Results) -> str:
    """The verdict, how much was judged, and how far off it is, in a line."""
    worst = words.worst(results.cells)
    if worst is None:
        return results.verdict
    cases = words.counted(sum(cell.cases for cell in results.cells), "case")
    size = worst.infinite or f"worst error / bound {worst.worst:.3g}"
    return (
        f"{results.verdict}: {cases}, {size} "
        f"({worst.property} on {worst.column}), {results.seconds:.0f} s"
    )


def _folded(message: str) -> list[str]:
    """A message with the last line alone of each traceback."""
    return [
        f"{part.summary} (the report has the traceback)" if part.summary else part.text
        for part in messages.parts(message)
    ]
