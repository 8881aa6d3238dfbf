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

A network that is trained, folded or asked in several batches is judged under the conventions that
were found for the other properties, and its explanation is the smallest part of these that holds;
for training, with one more convention or defect of training.

A subject that follows a convention that it is asked for, as timm's conv takes gamma, gives no
evidence on that field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from threadpoolctl import threadpool_limits

from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.conventions.altered import Fields
from nfspec.conformance.conventions.clock import Clock, OutOfTime
from nfspec.conformance.conventions.defects import Defect, defects
from nfspec.conformance.conventions.drawn import Draws, Given, cases
from nfspec.conformance.conventions.factor import UNIT
from nfspec.conformance.conventions.kinds import follows, value_of
from nfspec.conformance.conventions.question import Question
from nfspec.conformance.conventions.search import Explanation, explanation, reduced
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import judge
from nfspec.conformance.properties.training import TRAIN_01
from nfspec.conformance.running.answers import Answer, PreparedCase, ask, started
from nfspec.conformance.running.run import Progress, Status, essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.language.spec import Spec


def _inherits_alone(asked: Property) -> bool:
    """True of an invariance or a probe of integers, which is not explained by itself."""
    return asked.request in ("call", "twice") and value_of(asked) is not asked


def _by_others(asked: Property) -> bool:
    """True of a property that only what explains other properties can explain."""
    return follows(asked) or _inherits_alone(asked)


def _explicable(asked: Property) -> bool:
    """True if the answers to a property's cases can distinguish conventions."""
    return asked.request in ("call", "vjp", "twice", "drop") or asked.of_network is not None


def _failed(results: Results, column: Column) -> list[Cell]:
    """The failing cells of a column that can be explained: values, gradients, networks, then what
    only inherits, and then what follows from all of these."""
    cells = [
        cell
        for cell in results.cells
        if cell.column == column.name
        and cell.verdict in ("fail", "deviates")
        and _explicable(PROPERTIES[cell.property])
    ]

    def rank(cell: Cell) -> tuple[bool, bool]:
        asked = PROPERTIES[cell.property]
        return follows(asked), _inherits_alone(asked)

    return sorted(cells, key=rank)


@dataclass
class _Column:
    """A column whose failures are being explained.

    Attributes:
        settings, results: The run.
        about: The spec that was asked for, or the general grid.
        grid: The general grid, whose shapes cases are drawn of.
        column: The column.
        worker: Its worker.
        clock: The clock of the present search.
        explained: Property to its explanation; None where there is none.
    """

    settings: Settings
    results: Results
    about: Target
    grid: Target
    column: Column
    worker: Worker
    clock: Clock = field(default_factory=Clock)
    explained: dict[str, Explanation | None] = field(default_factory=dict)

    def entry(self, cell: Cell) -> dict[str, Any] | None:
        """The entry of a cell; None where there is nothing to say."""
        asked = PROPERTIES[cell.property]
        question = self._question(asked, cell)
        failing = [answer for answer in question.evidence if answer.beyond]
        if not question.evidence or (not failing and _by_others(asked)):
            return None
        of_value = self._of_value(asked)
        if follows(asked):
            return self._following(question)
        if failing and of_value is not None and self._holds(question, of_value):
            self.explained[asked.id] = of_value
            return self._written(question, of_value, value_of(asked).id)
        if _inherits_alone(asked):
            return self._by_more_shapes(question, failing)
        self.explained[asked.id] = self._explanation(question)
        return self._written(question, self.explained[asked.id])

    def failed(self, cell: Cell, error: Exception) -> dict[str, Any]:
        """The entry of a cell whose explanation ended in an error."""
        self.explained[cell.property] = None  # so that nothing inherits from it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        entry = self._entry(PROPERTIES[cell.property], cell.worst, cell.worst)
        failed = f"the search for an explanation failed: {reason}"
        return {**entry, "error": str(error) if isinstance(error, OutOfTime) else failed}

    def _question(self, asked: Property, cell: Cell | None) -> Question:
        several = essential_cases(asked, self.about, self.column.mode, self.settings.seed)
        if cell is not None and cell.worst_case is not None:
            several.append(Case.parse(cell.worst_case))
        evidence = _evidence(dict.fromkeys(several), self.worker)
        return Question(asked, self.about, evidence, self.clock)

    def _explanation(self, question: Question) -> Explanation | None:
        """The explanation of a question; None if there is none, or nothing fails."""
        if max((e.ratio for e in question.evidence), default=0.0) <= 1.0:
            return None  # another run of the same cases passes
        draws = Draws(question, self.worker, cases(question, self.grid))
        reason = explanation(question, draws.refuting, self._known())
        if reason is None or question.ratio(reason.fields, reason.factor) > 1.0:
            return None  # by the network's own band
        return reason

    def _known(self) -> list[Fields]:
        """The explanations of other properties: all of them together, and each by itself."""
        several = [earlier.fields for earlier in self.explained.values() if earlier]
        together: Fields = {}
        for fields in several:
            together |= fields
        distinct = {frozenset(fields.items()): fields for fields in (together, *several) if fields}
        return list(distinct.values())

    def _following(self, question: Question) -> dict[str, Any] | None:
        """The entry of a property of networks, judged under the conventions that are known; cases
        are drawn where these do not suffice."""
        draws, known = Draws(question, self.worker, cases(question, self.grid)), self._known()
        for fields in chain(known, self._of_training(question, known)):
            own = {name: value for name, value in fields.items() if question.changes({name: value})}
            if not question.explains(own):
                continue
            part = reduced(own, question.explains)
            refuted = fields not in known and next(draws.refuting(part, UNIT), None) is not None
            if refuted or question.ratio(part) > 1.0:
                continue
            alike = (id for id, other in self.explained.items() if other and other.fields == part)
            reason, inherits = Explanation(part), next(alike, "")
            if inherits:
                reason = self.explained[inherits] or reason
            self.explained[question.asked.id] = reason
            return self._written(question, reason, inherits)
        return None

    def _of_training(self, question: Question, known: list[Fields]) -> Iterator[Fields]:
        """A convention or a defect of training, alone and with all that is known."""
        if question.asked is TRAIN_01:
            moves = [*filter(question.trains, question.moves((), defects=True))]
            yield from ({**fields, **move} for fields in ({}, *known[:1]) for move in moves)

    def _by_more_shapes(self, question: Question, failing: list[Answer]) -> dict[str, Any] | None:
        """The entry of an invariance or a probe whose operation has right values for the shapes of
        the spec: the explanation of its values for the shapes that failed."""
        value, mode = value_of(question.asked), self.column.mode
        cell = self.results.cell(value.id, self.column.name)
        ops = tuple(dict.fromkeys(answer.prepared.case.op for answer in failing))
        if not ops or cell is None or cell.verdict not in ("pass", "pass in part"):
            return None
        clips = tuple(op for op in ops if isinstance(op, Clip))
        about = replace(self.about, ops=() if clips else ops, clips=clips)
        several = essential_cases(value, about, mode, self.settings.seed)
        of_values = Question(value, self.about, _evidence(several, self.worker), self.clock)
        reason = self._explanation(of_values)
        if reason is None or not _within(question, reason):
            return None
        self.explained[question.asked.id] = reason
        return self._written(question, reason)

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
        entry["fields"] = {k: v for k, v in reason.fields.items() if not isinstance(v, Defect)}
        if not self.about.general:
            said = {name: _said(self.about.spec, name) for name in entry["fields"]}
            entry["says"] = {name: value for name, value in said.items() if value is not None}
        if named := [defect.sentence for defect in defects(reason.fields)]:
            entry["defects"] = named
        if reason.at_most:
            entry["at_most"] = list(reason.at_most)
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


def _said(spec: Spec, name: str) -> Any:
    """The value of a field of the language in a spec; None in a table that it lacks."""
    table, _, key = name.partition(".")
    return (spec.model_dump(by_alias=True)[table] or {}).get(key)


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
) -> Iterator[dict[str, Any]]:
    """Look for the reasons for which subjects other than nfspec's own fail.

    Args:
        settings: Settings of the run.
        results: Results of the run.
        progress: Called with a text that says what is being done.

    Yields:
        Entries of `Results.explanations`, one for each failing cell that there is something to say
        of. Each has

        - `subject`, `property`, and `asked`: the spec that was asked for;
        - `fields`: the conventions under which the answers conform, field to value; empty if none
          are needed or none were found;
        - `ratio_before`, `ratio_after`: the largest |error| / bound as asked, and as explained.

        It has these where they say something:

        - `says`: the spec's values of `fields`;
        - `defects`: mistakes, in words, that the answers are consistent with, under `fields`;
        - `at_most`: the fields whose value, or any smaller one, explains the answers;
        - `factor`: the constant factor, in words, by which the answers are off, under `fields`;
        - `inherits`: the property of the same column whose explanation this is: the same cause;
        - `error`: a sentence, where the search itself failed, or took too long.

        An entry that has no fields, defects, factor or error says that nothing was found. An
        invariance, a probe of integers, or a network that is trained or folded has no entry where
        nothing that was found elsewhere explains it.
    """
    about = target(settings.source)
    for column in results.columns:
        cells = _failed(results, column) if column.subject not in BACKENDS else []
        if not cells:
            continue
        own = replace(settings, subjects=(column.subject,))
        with threadpool_limits(1), started(own, column.mode) as (worker,):
            explained = _Column(settings, results, about, target(None), column, worker)
            for cell in cells:
                text = f"{cell.property} on {column.name}: trying other conventions"

                def tell(more: str, text: str = text) -> None:
                    progress(results, Status(f"{text}: {more}"))

                progress(results, Status(text))
                explained.clock = Clock(tell)
                try:
                    entry = explained.entry(cell)
                except Exception as error:  # whatever it is, it costs this explanation alone
                    entry = explained.failed(cell, error)
                if entry is not None:
                    yield entry
