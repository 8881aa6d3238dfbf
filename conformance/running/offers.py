"""The methods that a subject offers, and what is said of it beside the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from nfspec.conformance.cases.results import PARTIAL, Cell, Column, Results
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.subjects import METHODS
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import suggest


def lacking(results: Results, must_offer: Iterable[str]) -> list[str]:
    """The methods that have to be offered and are not, a sentence for each column and method.

    Args:
        results: The run. Columns that did not run say so themselves.
        must_offer: Names of methods.
    """
    return [
        f"must-offer {method}: {column.name}: {reason}"
        for column in results.columns
        if column.facts
        for method in must_offer
        for reason in _reasons(results, column, method)
    ]


def lacking_methods(results: Results, worker: Worker, must_offer: Iterable[str]) -> list[str]:
    """The methods that have to be offered, that no property of a run asks for, and that a subject
    does not even have, a sentence for each."""
    asked = {PROPERTIES[info.id].method for info in results.properties}
    sentences = []
    for method in must_offer:
        try:
            worker.require(method)
        except WorkerError as error:
            if method not in asked:
                sentences.append(f"must-offer {method}: {worker.column.name}: {error}")
    return sentences


def _reasons(results: Results, column: Column, method: str) -> Iterator[str]:
    """The first reason why a method counts as lacking on a column."""
    cells = [c for c in results.cells if c.column == column.name and _asks(c, method)]
    partial = (
        cell
        for cell in cells
        if (cell.verdict in PARTIAL or cell.unoffered)
        and (cell.no_method or not _gradient(column, cell))
    )
    for cell in islice(partial, 1):
        yield f"{cell.property}: {cell.message.splitlines()[-1]}"


def _asks(cell: Cell, method: str) -> bool:
    return PROPERTIES[cell.property].method == method


def _gradient(column: Column, cell: Cell) -> bool:
    """True for gradients of a subject of NumPy, which has them only if it states them."""
    return column.framework == "numpy" and PROPERTIES[cell.property].request == "vjp"


def notes(results: Results, must_offer: Iterable[str]) -> list[str]:
    """Notes on a run for the reader, which do not change its verdict."""
    return [*_misspelt(results), *_wide(results), *_untested(results, must_offer)]


def _misspelt(results: Results) -> Iterator[str]:
    names = {c.subject: c.facts.get("unknown_methods", []) for c in results.columns}
    for subject, unknown in names.items():
        for name in unknown:
            near = suggest(name, METHODS)
            yield f"{subject}: the public method {name} is not one that the kit asks for{near}"


def _wide(results: Results) -> Iterator[str]:
    for column in results.columns:
        cells = [cell for cell in results.cells if cell.column == column.name and cell.wide]
        if cells:
            ids, asked = ", ".join(cell.property for cell in cells), _asked(column.mode)
            yield f"{column.name}: answers in float64 where {asked} was asked for ({ids})"


def _asked(mode: str) -> str:
    return {"bf16": "bfloat16", "f16": "float16"}.get(mode, "float32")


def _untested(results: Results, must_offer: Iterable[str]) -> Iterator[str]:
    asked = {PROPERTIES[info.id].method for info in results.properties}
    for method in must_offer:
        if method not in asked:
            yield f"must-offer {method}: no property of this run asks for it"
