"""Explanations of a failure: the conventions, as fields of the language, under which it conforms.

A subject is run once for each case, as the case asks. The reference is then evaluated under other
conventions until the outputs are within the bounds. A field is one on which implementations are
known to differ; a set of fields is reported only if no part of it suffices, and only if it explains
every case of the property.

A subject that follows a convention that it is asked for, as timm's conv takes gamma, gives no
evidence on that field. Training is not looked into.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from threadpoolctl import threadpool_limits

from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.cases.target import target
from nfspec.conformance.conventions.altered import Fields
from nfspec.conformance.conventions.question import Question
from nfspec.conformance.conventions.search import conventions
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.networks import NET_01
from nfspec.conformance.running.answers import Answer, PreparedCase, ask, started
from nfspec.conformance.running.run import Progress, Status, essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker


def _evidence(cases: Iterable[Case], worker: Worker) -> list[Answer]:
    """The answers to cases; those without one are left out."""
    replies = (ask(PreparedCase(case), [worker])[worker] for case in cases)
    return [reply for reply in replies if not isinstance(reply, WorkerError)]


def _explicable(asked: Property) -> bool:
    """True if the answers to a property's cases can distinguish conventions."""
    return asked.request in ("call", "vjp", "twice") or asked.expect is NET_01.expect


def _failed(results: Results, column: Column) -> list[Cell]:
    """The failing cells of a column that conventions may explain.

    Probes of integers, which many conventions pass, come after those that tell conventions apart.
    """
    cells = [
        cell
        for cell in results.cells
        if cell.column == column.name
        and cell.verdict in ("fail", "deviates")
        and _explicable(PROPERTIES[cell.property])
    ]
    return sorted(cells, key=lambda cell: PROPERTIES[cell.property].tier == 0)


def _entry(question: Question, column: Column, known: list[Fields]) -> dict[str, Any]:
    before = question.ratio({})
    fields = conventions(question, known)
    after = question.ratio(fields) if fields else before
    if after > 1.0:  # by the network's own band
        fields, after = {}, before
    return {
        "subject": column.subject,
        "property": question.asked.id,
        "asked": question.about.source if not question.about.general else "the general grid",
        "fields": fields,
        "ratio_before": before,
        "ratio_after": after,
    }


def explain(
    settings: Settings, results: Results, progress: Progress = lambda results, status: None
) -> list[dict[str, Any]]:
    """Look for the conventions that subjects other than nfspec's own keep where they fail.

    Args:
        settings: Settings of the run.
        results: Results of the run.
        progress: Called with a text that says what is being done.

    Returns:
        Entries of `Results.explanations`.
    """
    about, entries = target(settings.source), []
    for column in results.columns:
        cells = _failed(results, column) if column.subject not in BACKENDS else []
        if not cells:
            continue
        known: list[Fields] = []
        own = replace(settings, subjects=(column.subject,))
        with threadpool_limits(1), started(own, column.mode) as (worker,):
            for cell in cells:
                asked = PROPERTIES[cell.property]
                text = f"{asked.id} on {column.name}: trying other conventions"
                progress(results, Status(text))
                cases = essential_cases(asked, about, column.mode, settings.seed)
                if cell.worst_case is not None:
                    cases.append(Case.parse(cell.worst_case))
                evidence = _evidence(dict.fromkeys(cases), worker)
                if not evidence:
                    continue
                entries.append(_entry(Question(asked, about, evidence), column, known))
                fields = entries[-1]["fields"]
                known = [{k: v for part in (*known, fields) for k, v in part.items()}]
    return entries
