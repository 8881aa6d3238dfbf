"""The search for the smallest set of conventions that explains a subject's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

from nfspec.conformance.conventions.altered import Fields
from nfspec.conformance.conventions.question import Question

ROUNDS = 4  # changes that are combined, at most
WIDTH = 2  # combinations that the next round goes on from
FIRST_CASES = 2  # cases that a search starts from; cases that speak against its result are added


def smallest(excess: Callable[[Fields], float], moves: list[Fields]) -> Fields | None:
    """A smallest union of moves without any excess, no part of which is without.

    Args:
        excess: The excess of a set of fields: how far outputs are beyond their bounds.
        moves: Sets of fields to combine.

    Returns:
        None if a search that goes on from the best `WIDTH` of each round does not find one.
    """
    beam: list[Fields] = [{}]
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


def conventions(question: Question, known: Iterable[Fields] = ()) -> Fields:
    """The conventions that explain every answer; empty if none were found.

    Args:
        question: The deviation to explain.
        known: Sets of fields to try as one change, such as those that explained other properties.
    """
    moves = question.moves(known)
    chosen = sorted(question.evidence, key=lambda answer: -question.excess({}, [answer]))
    chosen = chosen[:FIRST_CASES]
    while True:
        fields = smallest(lambda f: question.excess(f, chosen), moves)
        if fields is None:
            return {}
        missed = [e for e in question.evidence if question.excess(fields, [e]) > 0.0]
        if not missed:
            return fields
        chosen.append(max(missed, key=lambda e: question.excess(fields, [e])))
