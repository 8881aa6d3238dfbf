"""A subject's answers, judged under other conventions than it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nfspec import reference
from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.cases.target import Target
from nfspec.conformance.conventions.altered import (
    DEFECT,
    Fields,
    altered_op,
    altered_params,
    altered_plan,
    altered_rules,
    altered_times,
    altered_values,
)
from nfspec.conformance.conventions.candidates import candidates
from nfspec.conformance.conventions.defects import DEFECTS
from nfspec.conformance.conventions.factor import UNIT, Factor
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, judge
from nfspec.conformance.properties.layers import conv_output_shape
from nfspec.conformance.properties.networks import NET_01, case_plan, case_weights, within_bands
from nfspec.conformance.properties.training import STEP_01, expected_step
from nfspec.conformance.running.answers import Answer
from nfspec.errors import InputError
from nfspec.plan import Plan, Pool, WSConv
from nfspec.plan.clipping import clip_rules
from nfspec.plan.counting import output_side
from nfspec.reference.rounding import Rounding

LARGEST = 1e30  # ratio that counts; those of other shapes or not finite are infinite
# Ratios of a network below this are computed again with the band of the changed network. The band
# of the network asked for may be too narrow: with a smaller eps flat channels are louder, and so is
# their rounding.
CLOSE = 1e3
NEAR_EPS = 1e-3  # of eps: there the gradient under the rule `max` is discontinuous


def value_of(asked: Property) -> Property:
    """The property that judges the values of the operation that a property is about."""
    return next(
        (
            p
            for p in PROPERTIES.values()
            if p.method == asked.method and p.tier == 1 and p.request == "call"
        ),
        asked,
    )


def of_networks(asked: Property) -> bool:
    """True if a property compares a block or a network with the reference, tap by tap."""
    return asked.expect is NET_01.expect


def parameters(case: Case) -> int:
    """The number of parameters of the block or network of a case; 0 for an operation."""
    return sum(p.size for p in case_plan(case).parameters.values()) if case.spec else 0


def of_steps(asked: Property) -> bool:
    """True if a property is about one step of the optimizer."""
    return asked.expect is STEP_01.expect


@dataclass
class Question:
    """The question under which conventions a subject's answers would be right.

    Attributes:
        asked: The property that the subject fails.
        about: The spec that it was asked for.
        evidence: Its answers to cases of the property; drawn ones are added.
    """

    asked: Property
    about: Target
    evidence: list[Answer]
    _known: dict[tuple[int, frozenset[Any], str], dict[str, float]] = field(default_factory=dict)
    _plans: dict[Any, Plan | None] = field(default_factory=dict)

    def cut(self, case: Case, upto: str) -> Plan:
        """The plan of a network's case as far as a tap; the whole plan if the tap is empty."""
        return _cut(case_plan(case), upto)

    def moves(self, more: Iterable[Fields], *, defects: bool = False) -> list[Fields]:
        """The candidates that change anything in some case.

        Args:
            more: Sets of fields to try as one change, besides the candidates.
            defects: True to try defects, too.
        """
        changes: list[Fields] = [*more]
        changes += candidates(self.about.spec, of_networks(self.asked))
        if defects:
            changes += [{DEFECT: defect} for defect in DEFECTS]
        moves: list[Fields] = []
        for move in changes:
            changing = any(self._changes(answer.prepared.case, move) for answer in self.evidence)
            if changing and move not in moves:
                moves.append(move)
        return moves

    def _changes(self, case: Case, fields: Fields) -> bool:
        if fields.get("ws.dtype") and case.mode in ("f32", "tf32"):
            return False  # the computation is in float32
        if of_steps(self.asked):
            return self._stepping(case, fields) != self._stepping(case, {})
        if not of_networks(self.asked):
            ones = {name: np.zeros(()) for name in ("gain", "bias", "skip_gain")}
            values = altered_values(case.op, fields, ones)
            op = altered_op(case.op, fields, self.about.spec)
            other = op != case.op or altered_times(case, fields) is not None
            return other or any(values[name] is not one for name, one in ones.items())
        plan, as_asked = self._plan(case, fields), case_plan(case)
        if plan is None or plan.ops != as_asked.ops:
            return plan is not None
        zeros: Arrays = {name: np.zeros((), np.float32) for name in as_asked.parameters}
        changed = altered_params(as_asked, zeros, fields)
        return any(changed[name] is not zero for name, zero in zeros.items())

    def _stepping(self, case: Case, fields: Fields) -> tuple[Any, Any]:
        """The rules of clipping and the recipe of a step."""
        plan = self._plan(case, fields)
        if plan is None:
            return None, None
        shapes = {name: parameter.shape for name, parameter in plan.parameters.items()}
        return altered_rules(clip_rules(plan), shapes, fields), plan.recipe

    def _plan(self, case: Case, fields: Fields) -> Plan | None:
        key = (case.reduced, case.block, frozenset(fields.items()))
        if key not in self._plans:
            self._plans[key] = altered_plan(case, fields, self.about.spec)
        return self._plans[key]

    def ratio(self, fields: Fields, factor: Factor = UNIT) -> float:
        """The largest |error| / bound of all cases, under the bounds of the changed network."""
        several = (self.ratios(e, fields, factor, exact=True).values() for e in self.evidence)
        return max((ratio for ratios in several for ratio in ratios), default=0.0)

    def excess(self, fields: Fields, evidence: Iterable[Answer], upto: str = "") -> float:
        """The distance of outputs beyond their bounds, in factors of e; 0 if none is beyond.

        Args:
            fields: The conventions under which they are judged.
            evidence: The answers.
            upto: The tap of a network after which nothing is evaluated; the whole network if empty.
        """
        ratios = (r for e in evidence for r in self._remembered(e, fields, upto).values())
        return sum(math.log(min(r, LARGEST)) for r in ratios if r > 1.0)

    def stated(self, fields: Fields, evidence: Iterable[Answer], upto: str = "") -> bool:
        """True if conventions say what is right for one of several answers, at least."""
        return any(self._remembered(e, fields, upto) for e in evidence)

    def first_beyond(self, e: Answer, fields: Fields) -> str:
        """The first output of an answer that is beyond its bound under some conventions."""
        ratios = self._remembered(e, fields, "")
        return next((name for name, ratio in ratios.items() if ratio > 1.0), "")

    def _remembered(self, evidence: Answer, fields: Fields, upto: str) -> dict[str, float]:
        key = (id(evidence), frozenset(fields.items()), upto)
        if key not in self._known:
            ratios = self.ratios(evidence, fields, upto=upto)
            if of_networks(self.asked) and 1.0 < max(ratios.values(), default=0.0) < CLOSE:
                ratios = self.ratios(evidence, fields, exact=True, upto=upto)
            self._known[key] = ratios
        return self._known[key]

    def ratios(
        self,
        e: Answer,
        fields: Fields,
        factor: Factor = UNIT,
        *,
        exact: bool = False,
        upto: str = "",
    ) -> dict[str, float]:
        """The ratio of each output of an answer; infinite where the outputs have other shapes, and
        none where the right outputs are not numbers, as an unbiased variance of one weight is not.

        Args:
            e: The answer that has the outputs.
            fields: The conventions under which they are judged.
            factor: A constant that the expected outputs are multiplied by.
            exact: True to compute the band of the changed network, False to take that of the
                network asked for, which is about the same.
            upto: The tap of a network after which nothing is evaluated; the whole network if empty.
        """
        if not fields and factor is UNIT:  # as it was judged
            names = self.cut(e.prepared.case, upto).taps if upto else e.prepared.expected.outputs
            return {f.name: f.ratio for f in e.judgement.findings if f.name in {*names, "outputs"}}
        with np.errstate(all="ignore"):  # no eps, and other extremes that are only tried
            expected = self.expected(e, fields, exact=exact, upto=upto)
            if expected is None:
                return {"outputs": math.inf}
            if not all(np.isfinite(wanted.value).all() for wanted in expected.outputs.values()):
                return {}
            outputs = e.outputs if fields else e.compared
            findings = judge(outputs, factor.applied(e, expected)).findings
        return {finding.name: finding.ratio for finding in findings}

    def expected(
        self, e: Answer, fields: Fields, *, exact: bool = False, upto: str = ""
    ) -> Expected | None:
        """The outputs of a case under other conventions; None if there is no such network, or
        the arrays of the case do not fit."""
        if not fields:
            return e.prepared.expected
        if of_networks(self.asked):
            return self._network(e, fields, exact, upto)
        if of_steps(self.asked):
            return self._step(e, fields)
        case = replace(e.prepared.case, op=self.altered(e.prepared.case.op, fields))
        calls = [altered_values(e.prepared.case.op, fields, call) for call in e.prepared.calls]
        if not fits(case, calls):
            return None
        times = altered_times(case, fields)
        if times is None:
            return self.asked.expect(case, calls)
        if "dy" in calls[0]:
            return self.asked.expect(case, [{**call, "dy": times * call["dy"]} for call in calls])
        expected = self.asked.expect(case, calls)
        outputs = {
            name: replace(
                wanted,
                value=times * wanted.value,
                terms={label: np.abs(times) * term for label, term in wanted.terms.items()},
            )
            for name, wanted in expected.outputs.items()
        }
        return replace(expected, outputs=outputs)

    def altered(self, op: Any, fields: Fields) -> Any:
        return altered_op(op, fields, self.about.spec)

    def _step(self, e: Answer, fields: Fields) -> Expected | None:
        plan = self._plan(e.prepared.case, fields)
        rules, _ = self._stepping(e.prepared.case, fields)
        return None if plan is None else expected_step(plan, rules, e.prepared.calls)

    def _network(self, e: Answer, fields: Fields, exact: bool, upto: str) -> Expected | None:
        case = e.prepared.case
        changed, as_asked = self._plan(case, fields), self.cut(case, upto)
        whole, x = case_weights(case), e.prepared.calls[0]["x"]
        plan = None if changed is None else _cut(changed, upto)
        if plan is None or plan.parameters != as_asked.parameters:
            return None
        params = altered_params(plan, {name: whole[name] for name in plan.parameters}, fields)

        def run(noise: Rounding | None = None) -> dict[str, Any]:
            return reference.forward(plan, params, x, rounding=noise)

        try:
            if exact:
                outputs = within_bands(run, case)
            else:
                asked_for = e.prepared.expected.outputs
                outputs = {tap: replace(asked_for[tap], value=y) for tap, y in run().items()}
        except InputError:  # nothing is left of the images under another padding
            return None
        return Expected(outputs, optional=frozenset(outputs))


def _cut(plan: Plan, upto: str) -> Plan:
    """A plan as far as one of its taps."""
    if not upto or upto not in plan.taps:
        return plan
    names, taps = [op.name for op in plan.ops], [*plan.taps]
    kept = taps[: taps.index(upto) + 1]
    last = max(names.index(plan.taps[tap]) for tap in kept)
    return replace(plan, ops=plan.ops[: last + 1], taps={tap: plan.taps[tap] for tap in kept})


def fits(case: Case, calls: list[Arrays]) -> bool:
    """True if the gradients' dy has the shape of the output of the operation of a case."""
    dy, op = calls[0].get("dy"), case.op
    if dy is None or isinstance(op, Clip):
        return True
    if isinstance(op, WSConv):
        return dy.shape == conv_output_shape(op, case.shape)
    if isinstance(op, Pool):
        sides = (output_side(n, op.window, op.stride, op.padding) for n in case.shape[1:3])
        return dy.shape[1:3] == tuple(sides)
    return True


def discontinuous(case: Case, calls: list[Arrays]) -> bool:
    """True if a case asks for a conv's gradient where it jumps, so that no answer is wrong."""
    op = case.op
    if "dy" not in calls[0] or not isinstance(op, WSConv) or op.eps_rule != "max":
        return False
    if op.fan_in <= op.ddof:
        return True  # there is no such variance
    n_v = op.fan_in * calls[0]["kernel"].astype(np.float64).var(axis=(0, 1, 2), ddof=op.ddof)
    return bool((np.abs(n_v / op.eps - 1.0) < NEAR_EPS).any())
