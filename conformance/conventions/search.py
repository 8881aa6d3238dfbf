"""The search for the smallest explanation of a subject's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice, takewhile

from nfspec.conformance.conventions.altered import Fields
from nfspec.conformance.conventions.defects import defects
from nfspec.conformance.conventions.factor import UNIT, Factor, common, free
from nfspec.conformance.conventions.kinds import of_networks, parameters
from nfspec.conformance.conventions.question import Question
from nfspec.conformance.running.answers import Answer

# Whether defects are tried, and how many changes are combined at most: what is simple comes first.
PHASES = ((False, 2), (True, 2), (False, 4), (True, 4))
WIDTH = 2  # combinations that the next round goes on from
FIRST_CASES = 2  # cases that a search starts from; cases that speak against its result are added
REFUTED = 6  # explanations that drawn cases refute, after which none is given
MOST_PARAMETERS = 2**23  # of the part of a network that all changes are tried on
REFUTING = 2  # answers against an explanation that are added to the evidence
# Fields whose value may be too small to show, the factors of a value that must make no difference
# for that, and those by which the largest value is looked for.
EPS = ("ws.eps", "agc.eps")
SMALLER, LARGER = (1e-2, 1e-4), (2.0, 5.0, 10.0, 20.0, 50.0)

Refute = Callable[[Fields, Factor], Iterator[Answer]]


@dataclass(frozen=True)
class Explanation:
    """The reason for a failure.

    Attributes:
        fields: The conventions, and the defects among them.
        factor: The factor of the outputs that is left under these.
        at_most: The fields whose value, or any smaller one, explains the answers.
    """

    fields: Fields
    factor: Factor = UNIT
    at_most: tuple[str, ...] = ()


def smallest(
    excess: Callable[[Fields], float],
    moves: list[Fields],
    start: Iterable[Fields] = ({},),
    enough: Callable[[Fields], bool] | None = None,
    rounds: int = 4,
) -> Fields | None:
    """A smallest union of moves without any excess, no part of which is without.

    Args:
        excess: The excess of a set of fields: how far outputs are beyond their bounds.
        moves: Sets of fields to combine.
        start: Sets of fields, each of which is combined with every move at first.
        enough: Function of fields that tells whether there is no excess; `excess` if not given.
        rounds: Number of moves that are combined, at most.

    Returns:
        None if a search that goes on from the best `WIDTH` of each round does not find one.
    """
    without = enough or (lambda fields: excess(fields) == 0.0)
    beam = list(start)
    for _ in range(rounds):
        unions = [{**s, **m} for s in beam for m in moves if not set(s) & set(m)]
        good = [fields for fields in unions if excess(fields) == 0.0]
        if good:
            return min((reduced(fields, without) for fields in good), key=len)
        beam = sorted(unions, key=excess)[:WIDTH]
    return None


def reduced(fields: Fields, enough: Callable[[Fields], bool]) -> Fields:
    """The smallest part of some fields that is enough."""
    for size in range(1, len(fields)):
        for part in combinations(fields.items(), size):
            if enough(dict(part)):
                return dict(part)
    return fields


def explanation(question: Question, refute: Refute, known: Iterable[Fields]) -> Explanation | None:
    """The explanation of every answer that drawn cases do not refute; None if none was found.

    Conventions are tried before defects and few changes before many, then a constant factor that is
    left under either.

    Args:
        question: The failure to explain.
        refute: Function that yields answers to drawn cases against an explanation.
        known: Sets of fields to try as one change, such as those that explained other properties.
    """
    known = list(known)
    fields = _of_known(question, refute, known) or _of_moves(question, refute, known)
    if fields is not None:
        return _with_range(question, refute, fields)
    values = all(e.prepared.asked.request in ("call", "vjp") for e in question.evidence)
    return _with_factor(question, refute, known) if values else None


def _of_known(question: Question, refute: Refute, known: Iterable[Fields]) -> Fields | None:
    """The part of what is known that explains every answer."""
    for fields in known:
        own = {name: value for name, value in fields.items() if question.changes({name: value})}
        if question.explains(own):
            part = reduced(own, question.explains)
            if not _added(question, refute(part, UNIT)):
                return part
    return None


def _of_moves(question: Question, refute: Refute, known: list[Fields]) -> Fields | None:
    """A union of conventions, or else of conventions and defects."""
    for with_defects, rounds in PHASES:
        moves = question.moves(known, defects=with_defects)
        for _ in range(REFUTED):
            tried = _smallest(question, moves, rounds)
            if tried is None:
                break
            if not _added(question, refute(tried, UNIT)):
                return tried
    return None


def _added(question: Question, against: Iterator[Answer]) -> bool:
    """Add the first answers against an explanation to the evidence; whether there was any."""
    several = list(islice(against, REFUTING))
    question.evidence += several
    return bool(several)


def _smallest(question: Question, moves: list[Fields], rounds: int) -> Fields | None:
    """The smallest union of moves that explains every answer; None if none was found.

    Every defect is tried with every convention, as one hides that the other is a step in the right
    direction; in networks, where each try takes long, only those that look best are. A network is
    evaluated as far as the first tap that is beyond its bound, and then as far as the next.
    """
    nets = of_networks(question.asked)
    start: list[Fields] = [{}, *(move for move in moves if defects(move) and not nets)]
    failing = [e for e in question.evidence if e.beyond]

    def cheap_and_telling(e: Answer) -> tuple[int, bool, float]:
        return parameters(e.prepared.case), math.isinf(e.ratio), -question.excess({}, [e])

    chosen = sorted(failing, key=cheap_and_telling)[:FIRST_CASES]
    upto = {id(e): question.first_beyond(e, {}) if nets else "" for e in chosen}
    fields: Fields | None = {}

    def excess(tried: Fields) -> float:
        if not any(question.stated(tried, [e], upto[id(e)]) for e in chosen):
            return math.inf
        return sum(question.excess(tried, [e], upto[id(e)]) for e in chosen)

    def enough(tried: Fields) -> bool:
        agrees = all(question.excess(tried, [e], upto[id(e)]) == 0.0 for e in chosen)
        return agrees and any(question.stated(tried, [e], upto[id(e)]) for e in chosen)

    while fields is not None:
        affordable = _affordable(question, chosen, upto, fields, moves) if nets else moves
        fields = smallest(excess, affordable, start, enough, rounds)
        if fields is None:
            return None
        missed = [e for e in question.evidence if question.excess(fields, [e]) > 0.0]
        if not missed:
            return fields
        worst = max(missed, key=lambda e: question.excess(fields or {}, [e]))
        chosen += [] if worst in chosen else [worst]
        if nets:
            upto[id(worst)] = question.first_beyond(worst, fields)
            start = [{}, fields]
        else:
            upto[id(worst)] = ""
    return None


def _affordable(
    question: Question,
    chosen: list[Answer],
    upto: dict[int, str],
    fields: Fields,
    moves: list[Fields],
) -> list[Fields]:
    """The moves that take no time to try: all where networks are small as far as the tap, and else
    those that change nothing before the last tap that agrees."""
    for e in chosen:
        tap = upto[id(e)]
        if question.effort(e, fields, tap, whole=True) <= MOST_PARAMETERS:
            continue
        if question.effort(e, fields, tap) > MOST_PARAMETERS:
            return []
        moves = [move for move in moves if question.begins_alike(e, fields, move, tap)]
    return moves


def _with_range(question: Question, refute: Refute, fields: Fields) -> Explanation:
    """An explanation that says of an eps which is too small to show that it may be smaller."""
    at_most = []
    for name in EPS:
        largest = _largest(question, refute, fields, name) if name in fields else None
        if largest is not None:
            fields = {**fields, name: largest}
            at_most.append(name)
    return Explanation(fields, at_most=tuple(at_most))


def _largest(question: Question, refute: Refute, fields: Fields, name: str) -> float | None:
    """The largest value of a field that explains the answers as smaller ones do; None if those do
    not."""
    value = fields[name]

    def holds(factor: float) -> bool:
        other = {**fields, name: factor * value}
        return question.agrees(other) and next(refute(other, UNIT), None) is None

    if not all(map(holds, SMALLER)):
        return None
    return float(value * max([1.0, *takewhile(holds, (f for f in LARGER if f * value <= 1.0))]))


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
