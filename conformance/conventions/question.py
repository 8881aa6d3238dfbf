"""A subject's answers, judged under other conventions than it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from nfspec import reference
from nfspec.conformance.cases.case import Case, Clip
from nfspec.conformance.cases.target import Target
from nfspec.conformance.conventions.altered import Fields, altered_op, altered_plan
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, Outputs, judge
from nfspec.conformance.properties.networks import NET_01, case_plan, weights, within_bands
from nfspec.conformance.running.answers import Answer
from nfspec.reference.rounding import Rounding

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
LARGEST = 1e30  # ratio that counts; those of other shapes or not finite are infinite

# Bits are the same only under the conventions that the operands are drawn for.
WITHOUT_BITS = {"EXACT-01": "WS-01", "EXACT-04": "AGC-01"}


@dataclass
class Question:
    """The question under which conventions a subject's answers would be right.

    Attributes:
        asked: The property that the subject fails.
        about: The spec that it was asked for.
        evidence: Its answers to cases of the property.
    """

    asked: Property
    about: Target
    evidence: list[Answer]
    _known: dict[tuple[int, frozenset[Any]], list[float]] = field(default_factory=dict)

    @property
    def of_networks(self) -> bool:
        return self.asked.expect is NET_01.expect

    def moves(self, more: Iterable[Fields]) -> list[Fields]:
        """The candidates that change anything in some case.

        Args:
            more: Sets of fields to try as one change, besides `CANDIDATES`.
        """
        moves: list[Fields] = []
        for move in (*more, *CANDIDATES):
            changes = any(self._changes(answer.prepared.case, move) for answer in self.evidence)
            if changes and move not in moves:
                moves.append(move)
        return moves

    def _changes(self, case: Case, fields: Fields) -> bool:
        if not self.of_networks:
            return altered_op(case.op, fields, self.about.spec) != case.op
        plan = altered_plan(case, fields, self.about.spec)
        return plan is not None and plan.ops != case_plan(case).ops

    def ratio(self, fields: Fields) -> float:
        """The largest |error| / bound of all cases, under the bounds of the changed network."""
        ratios = (r for e in self.evidence for r in self._ratios(e, fields, exact=True))
        return max(ratios, default=0.0)

    def excess(self, fields: Fields, evidence: Iterable[Answer]) -> float:
        """The distance of outputs beyond their bounds, in factors of e; 0 if none is beyond."""
        ratios = (r for e in evidence for r in self._remembered(e, fields))
        return sum(math.log(min(r, LARGEST)) for r in ratios if r > 1.0)

    def _remembered(self, evidence: Answer, fields: Fields) -> list[float]:
        key = (id(evidence), frozenset(fields.items()))
        if key not in self._known:
            self._known[key] = self._ratios(evidence, fields, exact=False)
        return self._known[key]

    def _ratios(self, e: Answer, fields: Fields, *, exact: bool) -> list[float]:
        """The ratio of each output.

        Args:
            e: The answer that has the outputs.
            fields: The conventions under which they are judged.
            exact: Whether to compute the band of the changed network, and not to take that of the
                network asked for, which is about the same.
        """
        if not fields:  # as it was judged
            return [each.ratio for each in e.judgement.findings]
        if self.of_networks:
            outputs, expected = e.outputs, self._network(e, fields, exact)
        else:
            outputs, expected = self._operation(e, fields)
        if expected is None:
            return [math.inf]
        if not expected.outputs:
            return []
        return [each.ratio for each in judge(outputs, expected).findings]

    def _operation(self, e: Answer, fields: Fields) -> tuple[Outputs, Expected]:
        before = e.prepared.case
        op = altered_op(before.op, fields, self.about.spec)
        if op == before.op:
            return e.compared, e.prepared.expected
        case = replace(before, op=op)
        judged_by = PROPERTIES[WITHOUT_BITS.get(self.asked.id, self.asked.id)]
        ops, clips = ((), (op,)) if isinstance(op, Clip) else ((op,), ())
        if not list(judged_by.cases(replace(self.about, ops=ops, clips=clips))):
            return {}, Expected({})  # it is not stated for such operations
        calls = e.prepared.calls
        return judged_by.reduce(case, calls, e.outputs), judged_by.expect(case, calls)

    def _network(self, e: Answer, fields: Fields, exact: bool) -> Expected | None:
        case = e.prepared.case
        plan = altered_plan(case, fields, self.about.spec)
        whole, x = weights(case.spec, case.reduced, case.seed), e.prepared.calls[0]["x"]
        if plan is None or plan.parameters != case_plan(case).parameters:
            return None
        params = {name: whole[name] for name in plan.parameters}

        def run(noise: Rounding | None = None) -> dict[str, Any]:
            return reference.forward(plan, params, x, rounding=noise)

        if exact:
            outputs = within_bands(run, case)
        else:
            asked_for = e.prepared.expected.outputs
            outputs = {tap: replace(asked_for[tap], value=value) for tap, value in run().items()}
        return Expected(outputs, optional=frozenset(outputs))
