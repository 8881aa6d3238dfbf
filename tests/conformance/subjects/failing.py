"""Results of a run in which properties failed, for searches that say why."""

from nfspec.conformance.cases.results import Cell, Column, Results


def failing(subject, framework, ids):
    column = Column(subject, framework, "cpu", "f32", {}, "")
    cells = [Cell(name, column.name, "fail") for name in ids]
    return Results({}, None, [column], [], cells)
