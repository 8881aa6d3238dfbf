"""Explanations of a failure: the conventions, as fields of the language, under which it conforms;
or a defect that an implementation is consistent with; or a constant factor.

A subject is run once for each case, as the case asks. The reference is then evaluated under other
conventions until the outputs are within the bounds. A field is one on which implementations are
known to differ; a set of fields is given only if no part of it suffices, if it explains every case
of the property, and if cases drawn afterwards, of other shapes and of every regime, agree.

One cause is told once: the value of an operation is explained first, and its other properties, the
gradients, the invariances and the probes of integers, inherit that explanation where it holds for
their answers, too. By themselves, invariances and probes are explained by nothing, as many
conventions pass them, and some are not stated under other conventions at all.

A subject that follows a convention that it is asked for, as timm's conv takes gamma, gives no
evidence on that field. Of training, only a step of the optimizer is looked into.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from threadpoolctl import threadpool_limits

from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.conventions.altered import DEFECT
from nfspec.conformance.conventions.drawn import Draws, Given, cases
from nfspec.conformance.conventions.question import Question, of_networks, of_steps, value_of
from nfspec.conformance.conventions.search import Explanation, explanation
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import judge
from nfspec.conformance.running.answers import Answer, PreparedCase, ask, started
from nfspec.conformance.running.run import Progress, Status, essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker


def _inherits_alone(asked: Property) -> bool:
    """True of an invariance or a probe of integers, which is not explained by itself."""
    return asked.request in ("call", "twice") and value_of(asked) is not asked


def _explicable(asked: Property) -> bool:
    """True if the answers to a property's cases can distinguish conventions."""
    of_ops = asked.request in ("call", "vjp", "twice")
    return of_ops or of_networks(asked) or of_steps(asked)


def _failed(results: Results, column: Column) -> list[Cell]:
    """The failing cells of a column that can be explained: values, gradients, networks, and then
    what only inherits."""
    cells = [
        cell
        for cell in results.cells
        if cell.column == column.name
        and cell.verdict in ("fail", "deviates")
        and _explicable(PROPERTIES[cell.property])
    ]
    return sorted(cells, key=lambda cell: _inherits_alone(PROPERTIES[cell.property]))


@dataclass
class _Column:
    """A column whose failures are being explained.

    Attributes:
        settings, results: The run.
        about: The spec that was asked for, or the general grid.
        grid: The general grid, whose shapes cases are drawn of.
        column: The column.
        worker: Its worker.
        explained: Property to its explanation; None where there is none.
    """

    settings: Settings
    results: Results
    about: Target
    grid: Target
    column: Column
    worker: Worker
    explained: dict[str, Explanation | None] = field(default_factory=dict)

    def entry(self, cell: Cell) -> dict[str, Any] | None:
        """The entry of a cell; None where there is nothing to say."""
        asked = PROPERTIES[cell.property]
        question = self._question(asked, cell)
        if not question.evidence:
            return None
        of_value = self._of_value(asked)
        fails = any(answer.beyond for answer in question.evidence)
        if fails and of_value is not None and self._holds(question, of_value):
            self.explained[asked.id] = of_value
            return self._written(question, of_value, value_of(asked).id)
        if _inherits_alone(asked):
            return None
        self.explained[asked.id] = self._explanation(question)
        return self._written(question, self.explained[asked.id])

    def failed(self, cell: Cell, error: Exception) -> dict[str, Any]:
        """The entry of a cell whose explanation ended in an error."""
        self.explained[cell.property] = None  # so that nothing inherits from it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        entry = self._entry(PROPERTIES[cell.property], cell.worst, cell.worst)
        return {**entry, "error": f"the search for an explanation failed: {reason}"}

    def _question(self, asked: Property, cell: Cell | None) -> Question:
        several = essential_cases(asked, self.about, self.column.mode, self.settings.seed)
        if cell is not None and cell.worst_case is not None:
            several.append(Case.parse(cell.worst_case))
        return Question(asked, self.about, _evidence(dict.fromkeys(several), self.worker))

    def _explanation(self, question: Question) -> Explanation | None:
        """The explanation of a question; None if there is none, or nothing fails."""
        if max((e.ratio for e in question.evidence), default=0.0) <= 1.0:
            return None  # another run of the same cases passes
        known: dict[str, Any] = {}
        for earlier in self.explained.values():
            known |= earlier.fields if earlier else {}
        draws = Draws(question, self.worker, cases(question, self.grid))
        reason = explanation(question, draws.refuting, [known] if known else [])
        if reason is None or question.ratio(reason.fields, reason.factor) > 1.0:
            return None  # by the network's own band
        return reason

    def _of_value(self, asked: Property) -> Explanation | None:
        """The explanation of the value of the operation that a property is about."""
        value = value_of(asked)
        if value is asked:
            return None
        if value.id not in self.explained:
            cell = self.results.cell(value.id, self.column.name)
            wrong = cell is None or cell.verdict in ("fail", "deviates")
            if not wrong:
                return None
            self.explained[value.id] = self._explanation(self._question(value, cell))
        return self.explained[value.id]

    def _holds(self, question: Question, reason: Explanation) -> bool:
        """True if the explanation of values explains the answers to another property."""
        if _inherits_alone(question.asked):
            return _within(question, reason)
        if question.ratio(reason.fields, reason.factor) > 1.0:
            return False
        draws = Draws(question, self.worker, cases(question, self.grid))
        return next(draws.refuting(reason.fields, reason.factor), None) is None

    def _written(
        self, question: Question, reason: Explanation | None, inherits: str = ""
    ) -> dict[str, Any]:
        before = max(e.ratio for e in question.evidence)
        if reason is None:
            return self._entry(question.asked, before, before)
        if _inherits_alone(question.asked):
            after = _ratio_of_values(question, reason)
        else:
            after = question.ratio(reason.fields, reason.factor)
        entry = self._entry(question.asked, before, after)
        entry["fields"] = {k: v for k, v in reason.fields.items() if k != DEFECT}
        if DEFECT in reason.fields:
            entry["defect"] = reason.fields[DEFECT].sentence
        if reason.factor.text:
            entry["factor"] = reason.factor.text
        return {**entry, "inherits": inherits} if inherits else entry

    def _entry(self, asked: Property, before: float, after: float) -> dict[str, Any]:
        return {
            "subject": self.column.subject,
            "property": asked.id,
            "asked": "the general grid" if self.about.general else self.about.source,
            "fields": {},
            "ratio_before": before,
            "ratio_after": after,
        }


def _evidence(several: Iterable[Case], worker: Worker) -> list[Answer]:
    """The answers to cases; those without one are left out."""
    replies = (ask(PreparedCase(case), [worker])[worker] for case in several)
    return [reply for reply in replies if not isinstance(reply, WorkerError)]


def _within(question: Question, reason: Explanation) -> bool:
    return _ratio_of_values(question, reason) <= 1.0


def _ratio_of_values(question: Question, reason: Explanation) -> float:
    """The largest ratio of the single outputs of an invariance or a probe, each judged as a value
    under an explanation."""
    value = value_of(question.asked)
    ratios = [0.0]
    for e in question.evidence:
        for i, call in enumerate(_calls(e)):
            output = e.outputs["y" if "y" in e.outputs else f"y{i}"]
            case = replace(e.prepared.case, property=value.id)
            prepared, outputs = Given(case, [call]), {"y": output}
            judgement = judge(outputs, prepared.expected)
            answer = Answer(e.worker, prepared, outputs, outputs, judgement)
            single = Question(value, question.about, [answer])
            ratios.append(single.ratio(reason.fields, reason.factor))
    return max(ratios)


def _calls(e: Answer) -> list[Arrays]:
    """The arrays of each output; the second call of AGC has the first's output as its gradient."""
    calls = e.prepared.calls
    if e.prepared.asked.request == "twice":
        return [calls[0], {**calls[0], "gradient": e.outputs["y0"]}]
    return calls


def explain(
    settings: Settings, results: Results, progress: Progress = lambda results, status: None
) -> list[dict[str, Any]]:
    """Look for the reasons for which subjects other than nfspec's own fail.

    Args:
        settings: Settings of the run.
        results: Results of the run.
        progress: Called with a text that says what is being done.

    Returns:
        Entries of `Results.explanations`, one for each failing cell that there is something to say
        of. Each has

        - `subject`, `property`, and `asked`: the spec that was asked for;
        - `fields`: the conventions under which the answers conform, field to value; empty if none
          are needed or none were found;
        - `ratio_before`, `ratio_after`: the largest |error| / bound as asked, and as explained.

        It has these where they say something:

        - `defect`: a mistake, in words, that the answers are consistent with, under `fields`;
        - `factor`: the constant factor, in words, by which the answers are off, under `fields`;
        - `inherits`: the property of the same column whose explanation this is: the same cause;
        - `error`: a sentence, where the search itself failed.

        An entry that has no fields and none of these four says that nothing was found. An
        invariance or a probe of integers that inherits nothing has no entry.
    """
    about, entries = target(settings.source), []
    for column in results.columns:
        cells = _failed(results, column) if column.subject not in BACKENDS else []
        if not cells:
            continue
        own = replace(settings, subjects=(column.subject,))
        with threadpool_limits(1), started(own, column.mode) as (worker,):
            explained = _Column(settings, results, about, target(None), column, worker)
            for cell in cells:
                text = f"{cell.property} on {column.name}: trying other conventions"
                progress(results, Status(text))
                try:
                    entry = explained.entry(cell)
                except Exception as error:  # whatever it is, it costs this explanation alone
                    entry = explained.failed(cell, error)
                if entry is not None:
                    entries.append(entry)
    return entries
