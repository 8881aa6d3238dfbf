"""The search for the smallest explanation of a subject's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice

from nfspec.conformance.conventions.altered import DEFECT, Fields
from nfspec.conformance.conventions.factor import UNIT, Factor, common, free
from nfspec.conformance.conventions.question import Question, of_networks, parameters
from nfspec.conformance.running.answers import Answer

ROUNDS = 4  # changes that are combined, at most
WIDTH = 2  # combinations that the next round goes on from
FIRST_CASES = 2  # cases that a search starts from; cases that speak against its result are added
REFUTED = 6  # explanations that drawn cases refute, after which none is given
MOST_PARAMETERS = 2**23  # of the part of a network that all changes are tried on
REFUTING = 2  # answers against an explanation that are added to the evidence

Refute = Callable[[Fields, Factor], Iterator[Answer]]


@dataclass(frozen=True)
class Explanation:
    """The reason for a failure.

    Attributes:
        fields: The conventions, and under `DEFECT` a defect if there is one.
        factor: The factor of the outputs that is left under these.
    """

    fields: Fields
    factor: Factor = UNIT


def smallest(
    excess: Callable[[Fields], float], moves: list[Fields], start: Iterable[Fields] = ({},)
) -> Fields | None:
    """A smallest union of moves without any excess, no part of which is without.

    Args:
        excess: The excess of a set of fields: how far outputs are beyond their bounds.
        moves: Sets of fields to combine.
        start: Sets of fields, each of which is combined with every move at first.

    Returns:
        None if a search that goes on from the best `WIDTH` of each round does not find one.
    """
    beam = list(start)
    for _ in range(ROUNDS):
        unions = [{**s, **m} for s in beam for m in moves if not set(s) & set(m)]
        enough = [fields for fields in unions if excess(fields) == 0.0]
        if enough:
            return min((_reduced(fields, excess) for fields in enough), key=len)
        beam = sorted(unions, key=excess)[:WIDTH]
    return None


def _reduced(fields: Fields, excess: Callable[[Fields], float]) -> Fields:
    """The smallest part of some fields without excess."""
    for size in range(1, len(fields)):
        for part in combinations(fields.items(), size):
            if excess(dict(part)) == 0.0:
                return dict(part)
    return fields


def explanation(question: Question, refute: Refute, known: Iterable[Fields]) -> Explanation | None:
    """The explanation of every answer that drawn cases do not refute; None if none was found.

    Conventions are tried first, then defects with and without conventions, then a constant factor
    that is left under either.

    Args:
        question: The failure to explain.
        refute: Function that yields answers to drawn cases against an explanation.
        known: Sets of fields to try as one change, such as those that explained other properties.
    """
    known = list(known)
    failing = [e for e in question.evidence if e.beyond]
    for fields in known:
        enough = question.excess(fields, question.evidence) == 0.0
        if enough and question.stated(fields, failing):
            part = _reduced(fields, lambda f: question.excess(f, question.evidence))
            if not _added(question, refute(part, UNIT)):
                return Explanation(part)
    for defects in (False, True):
        moves = question.moves(known, defects=defects)
        for _ in range(REFUTED):
            tried = _smallest(question, moves)
            if tried is None:
                break
            if not _added(question, refute(tried, UNIT)):
                return Explanation(tried)
    of_ops = not any(e.prepared.case.spec for e in question.evidence)
    return _with_factor(question, refute, known) if of_ops else None


def _added(question: Question, against: Iterator[Answer]) -> bool:
    """Add the first answers against an explanation to the evidence; whether there was any."""
    several = list(islice(against, REFUTING))
    question.evidence += several
    return bool(several)


def _smallest(question: Question, moves: list[Fields]) -> Fields | None:
    """The smallest union of moves that explains every answer; None if none was found.

    Every defect is tried with every convention, as one hides that the other is a step in the right
    direction; in networks, where each try takes long, only those that look best are. A network is
    evaluated as far as the first tap that is beyond its bound, and then as far as the next.
    """
    nets = of_networks(question.asked)
    start: list[Fields] = [{}, *(move for move in moves if DEFECT in move and not nets)]
    failing = [e for e in question.evidence if e.beyond]

    def cheap_and_telling(e: Answer) -> tuple[int, bool, float]:
        return parameters(e.prepared.case), math.isinf(e.ratio), -question.excess({}, [e])

    chosen = sorted(failing, key=cheap_and_telling)[:FIRST_CASES]
    upto = {id(e): question.first_beyond(e, {}) if nets else "" for e in chosen}

    def excess(fields: Fields) -> float:
        if not any(question.stated(fields, [e], upto[id(e)]) for e in chosen):
            return math.inf
        return sum(question.excess(fields, [e], upto[id(e)]) for e in chosen)

    while True:
        if any(_long(question, e, upto[id(e)]) for e in chosen):
            return None
        fields = smallest(excess, moves, start)
        if fields is None:
            return None
        missed = [e for e in question.evidence if question.excess(fields, [e]) > 0.0]
        if not missed:
            return fields
        worst = max(missed, key=lambda e: question.excess(fields, [e]))
        chosen += [] if worst in chosen else [worst]
        if nets:
            upto[id(worst)] = question.first_beyond(worst, fields)
            start = [{}, fields]
        else:
            upto[id(worst)] = ""


def _long(question: Question, e: Answer, upto: str) -> bool:
    """True if the reference takes long to evaluate a network as far as a tap."""
    case = e.prepared.case
    if not case.spec:
        return False
    return sum(p.size for p in question.cut(case, upto).parameters.values()) > MOST_PARAMETERS


def _with_factor(question: Question, refute: Refute, known: Iterable[Fields]) -> Explanation | None:
    """The factor that is left under at most one change, and that change."""
    for fields in ({}, *known, *question.moves((), defects=True)):
        for _ in range(REFUTED):
            factor = _factor(question, fields)
            if factor is None:
                break
            if not _added(question, refute(fields, factor)):
                return Explanation(fields, factor)
    return None


def _factor(question: Question, fields: Fields) -> Factor | None:
    """The factor that explains every answer under some conventions; None if there is none."""
    pairs: list[tuple[Answer, list[Factor]]] = []
    for e in question.evidence:
        if not question.stated(fields, [e]):
            continue
        expected = question.expected(e, fields)
        fitting = [] if expected is None else list(free(e, expected))
        fitting = [f for f in fitting if max(question.ratios(e, fields, f).values()) <= 1.0]
        if not fitting:
            return None
        pairs.append((e, fitting))
    for but_bias in (False, True):
        alike = [(e, f) for e, fs in pairs for f in fs if f.but_bias == but_bias]
        if pairs and len(alike) == len(pairs):
            for factor in common(alike, question.about.spec):
                if question.ratio(fields, factor) <= 1.0:
                    return factor
    return None
