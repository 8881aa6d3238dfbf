"""Which other conventions explain a failure: the fields of the language with which it would pass.

A subject is run once for each case, as the case asks. The reference is then evaluated under other
conventions until the outputs are within the bounds. A field is one on which implementations are
known to differ; a set of fields is reported only if no part of it suffices, and only if it explains
every case of the property.

What is asked cannot be told from the outputs: where a subject follows a convention that it is
asked for, as timm's conv takes gamma, that field explains nothing. Training is not looked into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from threadpoolctl import threadpool_limits

from nfspec import reference
from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, Outputs, judge
from nfspec.conformance.properties.networks import (
    NET_01,
    block_plan,
    case_plan,
    weights,
    within_bands,
)
from nfspec.conformance.running.run import Progress, Settings, columns, essential_cases
from nfspec.conformance.workers.columns import Runner
from nfspec.conformance.workers.pool import WorkerError
from nfspec.errors import SpecError
from nfspec.language.spec import Spec
from nfspec.plan import ECA, Activation, Plan, Pool, SqueezeExcite, WSConv
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.plan.arithmetic import gamma_of
from nfspec.plan.resolver import resolve
from nfspec.reference.rounding import Rounding

Fields = dict[str, Any]  # dotted name in the language to value

CHOICES: dict[str, tuple[Any, ...]] = {
    "ws.ddof": (0, 1),
    "activation.kind": ("gelu_tanh", "gelu_erf"),  # where it is the other GELU
    "activation.slope": (0.01, 0.2, 0.3),
    "activation.gamma": ("deepmind", "exact"),
    "activation.gamma_at": ("activation", "weight"),
    "activation.beta_at": ("after", "before"),
    "conv.padding": ("same", "symmetric"),
    "stem.padding": ("same", "symmetric", "valid"),
    "block.shortcut": ("avg_pool", "strided_conv"),
    "block.shortcut_input": ("activated", "raw"),
    "attention.gain": (1.0, 2.0),
    "se.activation": ("relu",),
    "se.gamma": (1.0, "deepmind"),
    "agc.unit": ("squeeze", "timm", "tensor"),
    "agc.eps": (1e-2, 1e-3, 1e-4, 1e-6),
}
# What eps means depends on the rule, so that neither is of use without the other.
TOGETHER = [
    {"ws.eps_rule": rule, "ws.eps": eps}
    for rule in ("max", "add", "add_to_std")
    for eps in (1e-4, 1e-5, 1e-6)
]
CANDIDATES: list[Fields] = [
    *TOGETHER,
    *({name: value} for name, values in CHOICES.items() for value in values),
]
ROUNDS = 4  # changes that are combined, at most
WIDTH = 2  # combinations that the next round goes on from
FIRST_CASES = 2  # that a search starts from; it is told of others as they speak against its result
LARGEST = 1e30  # ratio that counts; those of other shapes or not finite are infinite

# Bits are the same only under the conventions that the operands are drawn for.
WITHOUT_BITS = {"EXACT-01": "WS-01", "EXACT-04": "AGC-01"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """A case, and what a subject answered."""

    case: Case
    calls: list[Arrays]
    outputs: Outputs


@dataclass
class Question:
    """Under which conventions a subject's answers would be right."""

    asked: Property
    about: Target
    evidence: list[Evidence]
    _known: dict[tuple[int, frozenset[Any]], list[float]] = field(default_factory=dict)
    _asked_for: dict[int, Expected] = field(default_factory=dict)

    @property
    def of_networks(self) -> bool:
        return self.asked.expect is NET_01.expect

    def moves(self, more: Iterable[Fields]) -> list[Fields]:
        """The candidates that change anything in some case."""
        found = []
        for move in (*more, *CANDIDATES):
            if any(self._changes(e.case, move) for e in self.evidence) and move not in found:
                found.append(move)
        return found

    def _changes(self, case: Case, fields: Fields) -> bool:
        if not self.of_networks:
            return altered_op(case.op, fields, self.about.spec) != case.op
        plan = altered_plan(case, fields, self.about.spec)
        return plan is not None and plan.ops != case_plan(case).ops

    def ratio(self, fields: Fields) -> float:
        """The largest |error| / bound of all cases, under the bounds of the changed network."""
        ratios = (r for e in self.evidence for r in self._ratios(e, fields, exact=True))
        return max(ratios, default=0.0)

    def excess(self, fields: Fields, evidence: Iterable[Evidence]) -> float:
        """How far outputs are beyond their bounds, in factors of e; 0 if none is."""
        ratios = (r for e in evidence for r in self._remembered(e, fields))
        return sum(math.log(min(r, LARGEST)) for r in ratios if r > 1.0)

    def _remembered(self, evidence: Evidence, fields: Fields) -> list[float]:
        key = (id(evidence), frozenset(fields.items()))
        if key not in self._known:
            self._known[key] = self._ratios(evidence, fields, exact=False)
        return self._known[key]

    def _ratios(self, e: Evidence, fields: Fields, *, exact: bool) -> list[float]:
        """Of each output. `exact`: with a network's own band, not that of the one asked for, which
        is about the same."""
        if self.of_networks:
            outputs, expected = e.outputs, self._network(e, fields, exact)
        else:
            outputs, expected = self._operation(e, fields)
        if expected is None:
            return [math.inf]
        if not expected.outputs:
            return []
        return [f.ratio for f in judge(outputs, expected).findings]

    def _operation(self, e: Evidence, fields: Fields) -> tuple[Outputs, Expected]:
        op = altered_op(e.case.op, fields, self.about.spec)
        case, judged_by = replace(e.case, op=op), self.asked
        if op != e.case.op:
            judged_by = PROPERTIES[WITHOUT_BITS.get(self.asked.id, self.asked.id)]
            ops, clips = ((), (op,)) if isinstance(op, Clip) else ((op,), ())
            if not list(judged_by.cases(replace(self.about, ops=ops, clips=clips))):
                return {}, Expected({})  # it is not stated for such operations
        return judged_by.reduce(case, e.calls, e.outputs), judged_by.expect(case, e.calls)

    def _network(self, e: Evidence, fields: Fields, exact: bool) -> Expected | None:
        plan = altered_plan(e.case, fields, self.about.spec)
        whole, x = weights(e.case.spec, e.case.reduced, e.case.seed), e.calls[0]["x"]
        if plan is None or plan.parameters != case_plan(e.case).parameters:
            return None
        params = {name: whole[name] for name in plan.parameters}

        def run(noise: Rounding | None = None) -> dict[str, Any]:
            return reference.forward(plan, params, x, rounding=noise)

        if exact:
            outputs = within_bands(run, e.case)
        else:
            if id(e) not in self._asked_for:
                self._asked_for[id(e)] = self.asked.expect(e.case, e.calls)
            asked = self._asked_for[id(e)].outputs
            outputs = {name: replace(asked[name], value=value) for name, value in run().items()}
        return Expected(outputs, optional=frozenset(outputs))


def altered_op(op: Any, fields: Fields, spec: Spec) -> Any:
    """An operation, or a `Clip`, under other conventions."""
    get = fields.get
    changes: Fields = {}
    match op:
        case WSConv():
            changes = {
                "eps_rule": get("ws.eps_rule"),
                # One that no spec can have is a probe's own, chosen for its rule.
                "eps": get("ws.eps") if op.eps <= 1.0 else None,
                "ddof": get("ws.ddof"),
                "padding": get("conv.padding"),
                "gamma": {
                    "activation": 1.0,
                    "weight": gamma_of(
                        spec.activation.gamma, spec.activation.kind, spec.activation.slope
                    ),
                }.get(get("activation.gamma_at", "")),
            }
        case Activation():
            kind = get("activation.kind", op.kind) if op.kind.startswith("gelu") else op.kind
            slope = get("activation.slope", op.slope) if kind == "leaky_relu" else op.slope
            gamma = op.gamma
            if get("activation.gamma_at") == "weight":
                gamma = 1.0
            elif get("activation.gamma_at") == "activation" and gamma == 1.0:
                gamma = DEEPMIND_GAMMA[kind]
            if gamma != 1.0 and "activation.gamma" in fields:
                gamma = gamma_of(fields["activation.gamma"], kind, slope)
            changes = {"kind": kind, "slope": slope, "gamma": gamma}
            changes["beta_at"] = get("activation.beta_at")
        case Pool() if op.kind == "max":  # an average's padding is the same in every dialect
            changes = {"padding": get("conv.padding")}
        case SqueezeExcite():
            activation, gamma = get("se.activation", op.activation), op.gamma
            if "se.gamma" in fields:
                gamma = gamma_of(fields["se.gamma"], activation, op.slope)
            changes = {"gain": get("attention.gain"), "activation": activation, "gamma": gamma}
        case ECA():
            changes = {"gain": get("attention.gain")}
        case Clip():
            changes = {"unit": get("agc.unit"), "eps": get("agc.eps")}
    return replace(op, **{name: value for name, value in changes.items() if value is not None})


def altered_spec(spec: Spec, fields: Fields) -> Spec:
    """A spec with fields changed; GELUs alone become another GELU."""
    data = spec.model_dump(by_alias=True)
    for name, value in fields.items():
        table, _, key = name.partition(".")
        if name != "activation.kind" or data[table][key].startswith("gelu"):
            data[table][key] = value
    return Spec.model_validate(data)


def altered_plan(case: Case, fields: Fields, spec: Spec) -> Plan | None:
    """The plan of a case under other conventions; None if there is no such network."""
    try:
        other = altered_spec(spec, fields)
        plan = reduced_plan(other) if case.reduced else resolve(other)
    except SpecError:
        return None
    return block_plan(plan, case.block) if case.block else plan


def smallest(excess: Callable[[Fields], float], moves: list[Fields]) -> Fields | None:
    """A smallest union of moves without any excess, no part of which is without; None if a search
    that goes on from the best `WIDTH` of each round does not find one."""
    beam: list[Fields] = [{}]
    for _ in range(ROUNDS):
        unions = [{**s, **m} for s in beam for m in moves if not set(s) & set(m)]
        found = [fields for fields in unions if excess(fields) == 0.0]
        if found:
            return min((_reduced(fields, excess) for fields in found), key=len)
        beam = sorted(unions, key=excess)[:WIDTH]
    return None


def _reduced(fields: Fields, excess: Callable[[Fields], float]) -> Fields:
    """The smallest part of some fields without excess."""
    for size in range(1, len(fields)):
        for part in combinations(fields.items(), size):
            if excess(dict(part)) == 0.0:
                return dict(part)
    return fields


def conventions(question: Question, known: Iterable[Fields] = ()) -> Fields:
    """The conventions that explain every case; empty if none were found.

    Args:
        question: The deviation to explain.
        known: Sets of fields to try as one change, such as what explained other properties.
    """
    moves = question.moves(known)
    chosen = sorted(question.evidence, key=lambda e: -question.excess({}, [e]))[:FIRST_CASES]
    while True:
        fields = smallest(lambda f: question.excess(f, chosen), moves)
        if fields is None:
            return {}
        missed = [e for e in question.evidence if question.excess(fields, [e]) > 0.0]
        if not missed:
            return fields
        chosen.append(max(missed, key=lambda e: question.excess(fields, [e])))


def _evidence(asked: Property, cases: Iterable[Case], runner: Runner) -> list[Evidence]:
    """The answers to cases; those without one are left out."""
    found = []
    for case in cases:
        calls = asked.calls(case)
        try:
            runner.send(case, calls if asked.sent else None)
            found.append(Evidence(case, calls, runner.receive(case, calls)))
        except WorkerError:
            continue
    return found


def _explicable(asked: Property) -> bool:
    return asked.request in ("call", "pull", "twice") or asked.expect is NET_01.expect


def _failed(results: Results, column: Column) -> list[Cell]:
    """The failing cells of a column that conventions may explain; probes of integers, which many
    conventions pass, after those that tell conventions apart."""
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
        progress: Told what is being done.

    Returns:
        Entries of `Results.explanations`.
    """
    about, entries = target(settings.source), []
    for column in results.columns:
        cells = _failed(results, column) if column.subject not in BACKENDS else []
        if not cells:
            continue
        known: list[Fields] = []
        with (
            threadpool_limits(1),
            columns(replace(settings, subjects=(column.subject,)), column.mode) as (runner,),
        ):
            for cell in cells:
                asked = PROPERTIES[cell.property]
                progress(results, f"{asked.id} on {column.name}: trying other conventions")
                cases = essential_cases(asked, about, column.mode, settings.seed)
                if cell.worst_case is not None:
                    cases.append(Case.parse(cell.worst_case))
                evidence = _evidence(asked, dict.fromkeys(cases), runner)
                if not evidence:
                    continue
                entries.append(_entry(Question(asked, about, evidence), column, known))
                fields = entries[-1]["fields"]
                known = [{k: v for part in (*known, fields) for k, v in part.items()}]
    return entries
