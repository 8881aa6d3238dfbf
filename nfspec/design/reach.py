"""The least and the most that a kind of network can have, and what ends it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from nfspec.console import compact
from nfspec.design.frames import LEAST_SIDE, MOST_SIDE, SIDES, Frame, family, times, train_side
from nfspec.design.making import Made, counted, made
from nfspec.design.searching import FACTOR, FAMILY, NEAR, QUANTA, Budget, tuned
from nfspec.language.fields import MAX_BLOCKS
from nfspec.language.spec import Spec
from nfspec.plan.checks import MAX_PARAMETERS
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve

WAY = (0.25, 0.5, 0.75, 1.0)  # parts of the way to the largest and smallest depths and sizes
STEPS = 40  # factors of widths that are tried in each direction


def reached(spec: Spec, budget: Budget, knobs: tuple[str, ...], found: Made) -> tuple[Made, str]:
    """The network that is nearest to a budget of which a first search ended far away.

    Args:
        spec: The spec.
        budget: The amounts.
        knobs: The numbers that may change.
        found: The network of the first search.

    Returns:
        The network, and a sentence on what ends the search if the budget is out of reach.
    """
    if budget.macs is not None and budget.parameters is not None:
        alone = replace(budget, macs=None)
        few = tuple(knob for knob in knobs if knob != "size") or knobs
        _, limit = reached(spec, alone, few, found)
        return found, limit or _size_of_both(spec, budget)
    larger = budget.less(found)
    edge = end(spec, knobs, larger, sized=budget.macs is not None)
    if edge is not None and budget.less(edge) == larger and budget.miss(edge) > NEAR:
        best = budget.best((found, edge)) or found
        return best, _sentence(spec, budget, knobs, best, larger)
    for frame in _on_the_way(spec, knobs, found, larger):
        for other in tuned(spec, frame, budget, knobs, QUANTA[0], NEAR):
            found = budget.best((found, other)) or found
        if budget.miss(found) <= NEAR:
            break
    return found, ""


def end(spec: Spec, knobs: tuple[str, ...], larger: bool, sized: bool = True) -> Made | None:
    """The largest or the smallest network of a kind, nearly; None if none is found.

    Args:
        spec: The spec.
        knobs: The numbers that may change.
        larger: Look for the largest.
        sized: Sizes of images count.
    """
    for frame in _extremes(spec, knobs, larger, sized):
        factors = [1.0]
        if {"width", FAMILY} & {*knobs}:
            powers = range(-STEPS, STEPS + 1)
            factors = [FACTOR ** (n / STEPS) for n in (reversed(powers) if larger else powers)]
        for factor in factors:
            found = counted(made(spec, frame, factor, 1))
            if found is not None:
                return found
    return None


def _extremes(spec: Spec, knobs: tuple[str, ...], larger: bool, sized: bool) -> Iterator[Frame]:
    """The largest or the smallest depths and sizes, and then less extreme ones."""
    if knobs == (FAMILY,):
        frames = [*family(spec)]
        yield from reversed(frames) if larger else frames
        return
    depth, sides = spec.stages.depth, [spec.input.test]
    if "depth" in knobs:
        depth = times(depth, math.inf) if larger else (1,) * len(depth)
    if "size" in knobs and sized:
        least = SIDES if "width" in knobs else LEAST_SIDE
        sides = [MOST_SIDE] if larger else [least * 2**n for n in range(9)]
    for test in sides:
        yield Frame(depth, train_side(spec, test), test, spec.head.dropout)


def _on_the_way(spec: Spec, knobs: tuple[str, ...], found: Made, larger: bool) -> Iterator[Frame]:
    """Frames from that of a network to the most extreme one."""
    if knobs == (FAMILY,):
        return
    depth, test = found.spec.stages.depth, found.spec.input.test
    factor = MAX_BLOCKS / sum(depth) if larger else 1 / max(depth)
    side = MOST_SIDE if larger else SIDES
    for part in WAY:
        blocks = times(depth, factor**part) if "depth" in knobs else depth
        near = round(test ** (1 - part) * side**part / SIDES) * SIDES if "size" in knobs else test
        yield Frame(blocks, train_side(spec, near), near, spec.head.dropout)


def _size_of_both(spec: Spec, budget: Budget) -> str:
    """A sentence on the size that two budgets need, if there is no such size."""
    macs, parameters = budget.ratios(count(resolve(spec)))
    side = spec.input.test * math.exp(0.5 * (parameters - macs))
    if SIDES <= side <= MOST_SIDE:
        return ""
    return (
        f"so many multiply-accumulates for so many parameters need images of about {side:,.3g} px; "
        f"input.test is from {SIDES} to {MOST_SIDE:,}"
    )


def _sentence(spec: Spec, budget: Budget, knobs: tuple[str, ...], edge: Made, larger: bool) -> str:
    """The end that a kind has, and the fields that end it."""
    if budget.macs is not None:
        amount, what = edge.macs, "multiply-accumulates"
    else:
        amount, what = edge.parameters, "parameters"
    text = compact(amount) if amount < 1e15 else f"{amount:.1e}"
    ends = fields_at_end(edge.spec, knobs, larger, budget.macs is not None)
    most = "most" if larger else "least"
    return f"{spec.name} has at {most} about {text} {what} by {', '.join(knobs)}, with {ends}"


def fields_at_end(spec: Spec, knobs: tuple[str, ...], larger: bool, sized: bool = True) -> str:
    """The fields that end a search, at their last values in a spec.

    Args:
        spec: The largest or the smallest network of its kind.
        knobs: The numbers that may change.
        larger: It is the largest.
        sized: Sizes of images count.
    """
    family, parts = knobs == (FAMILY,), []
    if family or "depth" in knobs:
        parts.append(f"stages.depth at {sum(spec.stages.depth):,} blocks")
    if sized and (family or "size" in knobs):
        parts.append(f"input.test at {spec.input.test:,} px")
    if family or "width" in knobs:
        of_stages = spec.stages.width
        width = spec.stages.width_factor * (max(of_stages) if larger else min(of_stages))
        parts.append(f"stages.width at {round(width):,}")
    if larger and (found := counted(spec)) and found.parameters > MAX_PARAMETERS / 2:
        parts.append(f"{compact(MAX_PARAMETERS)} parameters as the most that a network may have")
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
