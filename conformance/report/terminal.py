"""A run as a terminal shows it, in 80 columns: the table, and what is wrong in words."""

from __future__ import annotations

from nfspec.conformance.cases.results import Cell, Results
from nfspec.conformance.report import words
from nfspec.console import WIDTH, table


def short(cell: Cell | None) -> str:
    """A cell in a few characters: the worst ratio, with a mark if it fails, or the verdict."""
    if cell is None:
        return "."
    match cell.verdict:
        case "pass":
            return f"{cell.worst:.2g}"
        case "fail":
            return f"{cell.worst:.2g} !"
        case "deviates":
            return f"{cell.worst:.2g} d"
        case "not offered":
            return "-"
        case "missing":
            return "missing"
        case _:
            return f"{cell.verdict}!"


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


def summary(results: Results) -> list[str]:
    """The problems, the explanations, and the verdict in a line."""
    text = []
    for cell in words.bad(results):
        text += [f"{cell.property} on {cell.column}: {cell.verdict}", cell.message, ""]
    for column in results.columns:
        if column.problem:
            text += [f"{column.name}: {column.problem}", ""]
    for entry in results.explanations:
        text += [words.explanation(entry), ""]
    text += results.problems
    worst = words.worst(results.cells)
    if worst is None:
        return [*text, results.verdict]
    cases = words.counted(sum(cell.cases for cell in results.cells), "case")
    return [
        *text,
        f"{results.verdict}: {cases}, worst error / bound {worst.worst:.3g} "
        f"({worst.property} on {worst.column}), {results.seconds:.0f} s",
    ]
