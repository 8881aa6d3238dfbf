"""A subject's answers, judged under other conventions than it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import Target
from nfspec.conformance.conventions.altered import (
    Fields,
    altered_network,
    altered_op,
    altered_values,
    times,
)
from nfspec.conformance.conventions.beginnings import Evaluated, cut, evaluate, same_until
from nfspec.conformance.conventions.candidates import candidates
from nfspec.conformance.conventions.clock import Clock
from nfspec.conformance.conventions.defects import DEFECTS
from nfspec.conformance.conventions.factor import UNIT, Factor
from nfspec.conformance.conventions.kinds import fits, follows, of_networks, of_steps
from nfspec.conformance.properties import Property
from nfspec.conformance.properties.base import Expectation, Expected, judge
from nfspec.conformance.properties.networks import Network, case_plan, case_weights
from nfspec.conformance.running.answers import Answer
from nfspec.errors import InputError
from nfspec.plan import Plan, WSConv
from nfspec.plan.clipping import clip_rules

LARGEST = 1e30  # ratio that counts; those of other shapes or not finite are infinite
# Ratios of a network below these are computed again with the band of the changed network, since
# that of the network asked for may be too narrow: with another eps flat channels are louder, and so
# is their rounding; with the same eps the bands are alike, and computed once.
CLOSE_BY_EPS, CLOSE = 1e3, 3.0
# A band that is wider than this many bands of the network asked for, or than a tenth of the output,
# says nothing: everything would be explained by an eps so small that rounding decides.
WIDER, SHARE = 1e3, 0.1


@dataclass
class Question:
    """The question under which conventions a subject's answers would be right.

    Attributes:
        asked: The property that the subject fails.
        about: The spec that it was asked for.
        evidence: Its answers to cases of the property; drawn ones are added.
        clock: The clock of the search.
    """

    asked: Property
    about: Target
    evidence: list[Answer]
    clock: Clock = field(default_factory=Clock)
    _known: dict[tuple[int, frozenset[Any], str], dict[str, float]] = field(default_factory=dict)
    _largest: dict[Any, float] = field(default_factory=dict)
    _networks: dict[Any, Network | None] = field(default_factory=dict)
    _evaluated: dict[int, list[Evaluated]] = field(default_factory=dict)
    _bands: dict[int, dict[Any, Mapping[str, Expectation]]] = field(default_factory=dict)

    def moves(self, more: Iterable[Fields], *, defects: bool = False) -> list[Fields]:
        """The candidates that change anything in some case.

        Args:
            more: Sets of fields to try as one change, besides the candidates.
            defects: True to try defects, too.
        """
        changes: list[Fields] = [*more]
        changes += candidates(self.about.spec, of_networks(self.asked))
        if defects:
            changes += [defect.fields for defect in DEFECTS]
        moves: list[Fields] = []
        for move in changes:
            if self.changes(move) and move not in moves:
                moves.append(move)
        return moves

    def changes(self, fields: Fields) -> bool:
        """True if some fields change what is right in some case."""
        return any(self._changes(answer.prepared.case, fields) for answer in self.evidence)

    def _changes(self, case: Case, fields: Fields) -> bool:
        if fields.get("ws.dtype") and case.mode in ("f32", "tf32"):
            return False  # the computation is in float32
        if case.spec:
            return self._changes_network(case, fields)
        ones = {name: np.zeros(()) for name in ("gain", "bias", "skip_gain")}
        values = altered_values(case.op, fields, ones)
        op = self.altered(case.op, fields)
        other = op != case.op or times(case.op, case.shape, fields) is not None
        return other or any(values[name] is not one for name, one in ones.items())

    def _changes_network(self, case: Case, fields: Fields) -> bool:
        computed, trained = self._kinds(case, fields)
        if follows(self.asked):
            return computed or trained
        return computed if of_networks(self.asked) else trained

    def trains(self, fields: Fields) -> bool:
        """True if some fields change how the network of every case is trained, and nothing else."""
        kinds = [self._kinds(answer.prepared.case, fields) for answer in self.evidence]
        return all(kind == (False, True) for kind in kinds)

    def _kinds(self, case: Case, fields: Fields) -> tuple[bool, bool]:
        """Two answers: fields change a network's outputs, and they change its training."""
        other, own = self.network(case, fields), case_plan(case)
        if other is None:
            return False, False
        computed = other.plan.ops != own.ops or bool(other.params or other.change)
        return computed, other.rules != clip_rules(own) or other.plan.recipe != own.recipe

    def network(self, case: Case, fields: Fields) -> Network | None:
        """The network of a case under other conventions; None if there is none."""
        key = (case.reduced, case.block, case.drops, frozenset(fields.items()))
        if key not in self._networks:
            self._networks[key] = altered_network(case, fields, self.about.spec)
        return self._networks[key]

    def altered(self, op: Any, fields: Fields) -> Any:
        return altered_op(op, fields, self.about.spec)

    def ratio(self, fields: Fields, factor: Factor = UNIT) -> float:
        """The largest |error| / bound of all cases, under the bounds of the changed network."""
        key = frozenset(fields.items()), factor, len(self.evidence)
        if key not in self._largest:
            several = (self.ratios(e, fields, factor, exact=True).values() for e in self.evidence)
            self._largest[key] = max((r for ratios in several for r in ratios), default=0.0)
        return self._largest[key]

    def excess(self, fields: Fields, evidence: Iterable[Answer], upto: str = "") -> float:
        """The distance of outputs beyond their bounds, in factors of e; 0 if none is beyond.

        Args:
            fields: The conventions under which they are judged.
            evidence: The answers.
            upto: The tap of a network after which nothing is evaluated; the whole network if empty.
        """
        ratios = (r for e in evidence for r in self._remembered(e, fields, upto).values())
        return sum(math.log(min(r, LARGEST)) for r in ratios if r > 1.0)

    def explains(self, fields: Fields) -> bool:
        """True if no answer is beyond its bound under some conventions, and they say what is right
        for one of those that were, at least."""
        return self.agrees(fields) and self.stated(fields, filter(_beyond, self.evidence))

    def agrees(self, fields: Fields) -> bool:
        """True if no answer is beyond its bound under some conventions. Of networks, the parts as
        far as the first wrong tap are tried before the whole."""
        failing = [*filter(_beyond, self.evidence)]
        upto = [self.first_beyond(e, {}) if of_networks(self.asked) else "" for e in failing]
        return all(
            self.excess(fields, [e], tap) == 0.0
            for e, tap in [*zip(failing, upto, strict=True), *((e, "") for e in self.evidence)]
        )

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
            self._known[key] = self.judged(evidence, fields, upto=upto)
        return self._known[key]

    def judged(
        self, e: Answer, fields: Fields, factor: Factor = UNIT, *, upto: str = ""
    ) -> dict[str, float]:
        """The ratio of each output of an answer, by the band of the changed network where it is
        close to that of the network asked for: see `ratios`."""
        self.clock.tick()
        ratios = self.ratios(e, fields, factor, upto=upto)
        if fields and 1.0 < max(ratios.values(), default=0.0) < self._close(e, fields, upto):
            ratios = self.ratios(e, fields, factor, exact=True, upto=upto)
        return ratios

    def _close(self, e: Answer, fields: Fields, upto: str) -> float:
        """The ratio below which an answer is judged again; 0 where that makes no difference."""
        case = e.prepared.case
        if not case.spec or of_steps(self.asked):
            return 0.0
        other = self.network(case, fields)
        if other is None:
            return CLOSE
        taps = cut(other.plan, upto).taps.keys() & e.prepared.expected.outputs.keys()
        known = taps <= self._bands.get(id(e), {}).get(_eps(other.plan), {}).keys()
        return CLOSE if known else CLOSE_BY_EPS

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
        case, calls = e.prepared.case, e.prepared.calls
        if not fields and factor is UNIT:  # as it was judged
            names = cut(case_plan(case), upto).taps if upto else e.prepared.expected.outputs
            return {f.name: f.ratio for f in e.judgement.findings if f.name in {*names, "outputs"}}
        with np.errstate(all="ignore"):  # no eps, and other extremes that are only tried
            expected = self.expected(e, fields, exact=exact, upto=upto)
            if expected is None:
                return {"outputs": math.inf}
            if not all(np.isfinite(wanted.value).all() for wanted in expected.outputs.values()):
                return {}
            outputs = self.asked.reduce(self._case(case, fields), calls, e.outputs)
            findings = judge(outputs, factor.applied(e, expected)).findings
        asked_for = e.prepared.expected.outputs
        empty = {
            name
            for name, wanted in expected.outputs.items()
            if case.spec and name in asked_for and not _telling(wanted, asked_for[name])
        }
        return {f.name: math.inf if f.name in empty else f.ratio for f in findings}

    def _case(self, case: Case, fields: Fields) -> Case:
        """A case with the operation that it is about under other conventions."""
        return case if case.op is None else replace(case, op=self.altered(case.op, fields))

    def expected(
        self, e: Answer, fields: Fields, *, exact: bool = False, upto: str = ""
    ) -> Expected | None:
        """The outputs of a case under other conventions; None if there is no such network, or
        the arrays of the case do not fit."""
        if not fields:
            return e.prepared.expected
        if e.prepared.case.spec:
            return self._of_network(e, fields, exact, upto)
        op = e.prepared.case.op
        case = self._case(e.prepared.case, fields)
        calls = [altered_values(op, fields, call) for call in e.prepared.calls]
        if not fits(case, calls):
            return None
        factor = times(op, case.shape, fields)
        if factor is None:
            return self.asked.expect(case, calls)
        if "dy" in calls[0]:
            return self.asked.expect(case, [{**call, "dy": factor * call["dy"]} for call in calls])
        expected = self.asked.expect(case, calls)
        outputs = {
            name: replace(
                wanted,
                value=factor * wanted.value,
                terms={label: np.abs(factor) * term for label, term in wanted.terms.items()},
            )
            for name, wanted in expected.outputs.items()
        }
        return replace(expected, outputs=outputs)

    def _of_network(self, e: Answer, fields: Fields, exact: bool, upto: str) -> Expected | None:
        case, calls = e.prepared.case, e.prepared.calls
        network = self.network(case, fields)
        if network is None or network.plan.parameters != case_plan(case).parameters:
            return None
        asked_for, eps = e.prepared.expected.outputs, _eps(network.plan)
        bands = self._bands.setdefault(id(e), {_eps(case_plan(case)): asked_for})
        like = {**asked_for, **bands.get(eps, {})}
        assert self.asked.of_network is not None
        try:
            if of_networks(self.asked) and not exact:
                outputs = self._taps(e, network, upto)
                return Expected(
                    {tap: replace(like[tap], value=y) for tap, y in outputs.items()},
                    optional=frozenset(outputs),
                )
            own = replace(network, plan=cut(network.plan, upto), like=None if exact else like)
            expected = self.asked.of_network(own, case, calls)
            if exact and of_networks(self.asked):
                bands[eps] = {**expected.outputs, **bands.get(eps, {})}
            return expected
        except InputError:  # nothing is left of the images under another padding
            return None

    def _taps(self, e: Answer, network: Network, upto: str) -> dict[str, Any]:
        """The taps of a network; what it has in common with one that was evaluated is not evaluated
        again."""
        several = self._evaluated.setdefault(id(e), [self._as_asked(e)])
        case, x = e.prepared.case, e.prepared.calls[0]["x"]
        taps = evaluate(network, case_weights(case), x, upto, several)
        if not upto:
            self._evaluated[id(e)] = [several[0], Evaluated(network, taps)]
        return taps

    def _as_asked(self, e: Answer) -> Evaluated:
        outputs = e.prepared.expected.outputs
        taps = {name: wanted.value for name, wanted in outputs.items()}
        return Evaluated(Network(case_plan(e.prepared.case)), taps)

    def effort(self, e: Answer, fields: Fields, upto: str, *, whole: bool = False) -> int:
        """The number of parameters of a network, as far as a tap; of the part after the last tap
        that agrees, unless the whole is asked for."""
        plan = cut(self._changed(e, fields).plan, upto)
        before = "" if whole else _before(e, plan)
        of_part = cut(plan, before).parameters if before else {}
        return sum(p.size for name, p in plan.parameters.items() if name not in of_part)

    def begins_alike(self, e: Answer, fields: Fields, more: Fields, upto: str) -> bool:
        """True if more changes leave a network as it is before the last tap that agrees."""
        one, other = self._changed(e, fields), self.network(e.prepared.case, {**fields, **more})
        before = _before(e, cut(one.plan, upto))
        return other is not None and bool(before) and same_until(one, other, before)

    def _changed(self, e: Answer, fields: Fields) -> Network:
        network = self.network(e.prepared.case, fields)
        assert network is not None
        return network


def _beyond(e: Answer) -> bool:
    return e.beyond


def _before(e: Answer, plan: Plan) -> str:
    """The tap of an answer before the last tap of a plan; empty if there is none."""
    return ([""] + [tap for tap in [*plan.taps][:-1] if tap in e.outputs])[-1]


def _eps(plan: Plan) -> frozenset[tuple[float, str]]:
    """The eps of a plan's convs."""
    return frozenset((op.eps, op.eps_rule) for op in plan.ops if isinstance(op, WSConv))


def _telling(wanted: Expectation, asked: Expectation) -> bool:
    """True unless the band of a changed network's output is so wide that everything is in it."""
    if not wanted.rms:
        return True
    size = float(np.sqrt((wanted.value**2).mean()))
    own, band = float(asked.bound), float(wanted.bound)
    return band <= max(own, min(WIDER * own, SHARE * size) if size else WIDER * own)
