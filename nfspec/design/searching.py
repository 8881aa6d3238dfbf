"""The network of a kind that is nearest to a budget of what is counted.

Multiply-accumulates go with width², depth and side²; parameters with width² and depth. Widths come
last: they are what makes up for whole blocks and whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from nfspec.design.frames import (
    LEAST_SIDE,
    MOST_SIDE,
    Frame,
    any_sides,
    depths,
    family,
    sides_around,
    times,
    train_side,
)
from nfspec.design.making import MOST_WIDTH, Made, counted, made, with_fields, with_groups
from nfspec.errors import InputError
from nfspec.language.spec import Spec
from nfspec.plan.counting import Count, count
from nfspec.plan.resolver import resolve

KNOBS = ("width", "depth", "size")
FAMILY = "family"
# Widths are multiples of the first of these that comes near the budget, and is an eighth of the
# narrowest stage at most; of the second row only where all of the first are tried.
QUANTA = ((64, 32, 16, 8), (4, 2, 1))
NEAR = 0.01  # of the budget: no better widths are looked for, unless a bisection by hand has them
CLOSE = 0.1  # of the budget: single widths are changed
FACTOR = 256.0  # largest change of widths, up and down
MOST_TRIED = 243  # networks whose widths are a quantum wider or narrower


@dataclass(frozen=True)
class Budget:
    """The amounts that are asked for; None where nothing is."""

    macs: float | None
    parameters: float | None

    def ratios(self, found: Made | Count) -> list[float]:
        """Logarithms of what there is over what is asked for."""
        pairs = ((found.macs, self.macs), (found.parameters, self.parameters))
        return [math.log(there / asked) for there, asked in pairs if asked is not None]

    def miss(self, found: Made | Count) -> float:
        """The largest distance from an amount, as a share of it."""
        largest = max(self.ratios(found), key=abs)
        return abs(math.expm1(largest)) if largest < 700 else math.inf

    def less(self, found: Made) -> bool:
        """True if a network has less than is asked for."""
        return sum(self.ratios(found)) < 0

    def best(self, found: Iterable[Made | None]) -> Made | None:
        """The nearest; the first of those that are equally near."""
        return min(filter(None, found), key=self.miss, default=None)


def nearest(spec: Spec, budget: Budget, knobs: tuple[str, ...], exact: bool = True) -> Made:
    """The network that is nearest to a budget.

    The first that is within `NEAR` of it, of those with the roundest widths first.

    Args:
        spec: The spec.
        budget: The amounts.
        knobs: The numbers that may change: see `nfspec.scale`.
        exact: It is also no further from the budget than a bisection by hand comes.

    Raises:
        InputError: No such network can be made.
    """
    hand = bisected(spec, budget, knobs) if exact else None
    near = NEAR if hand is None else min(NEAR, budget.miss(hand))
    best: Made | None = None
    for found in _candidates(spec, budget, knobs, near, exact):
        best = budget.best((best, found))
        if best is not None and budget.miss(best) <= near:
            return best
    best = budget.best((best, hand))
    if best is None:
        raise InputError(f"{spec.name}: no network of this kind is near the budget")
    return best


def _candidates(
    spec: Spec, budget: Budget, knobs: tuple[str, ...], near: float, exact: bool
) -> Iterator[Made]:
    frames = [*_frames(spec, budget, knobs)]
    for quanta in QUANTA:
        for frame in frames:
            yield from tuned(spec, frame, budget, knobs, quanta, near, exact)


def _frames(spec: Spec, budget: Budget, knobs: tuple[str, ...]) -> Iterator[Frame]:
    """Depths and sizes worth trying."""
    depth, sides = spec.stages.depth, [spec.input.test]
    if knobs == (FAMILY,):
        counts = {each: counted(made(spec, each, 1.0, 1)) for each in family(spec)}
        misses = {each: budget.miss(found) for each, found in counts.items() if found}
        yield min(misses, key=lambda each: misses[each])
        return
    ratios = [math.exp(-ratio) for ratio in budget.ratios(count(resolve(spec)))]
    if knobs == ("depth",):
        for blocks in depths(depth, ratios[-1]):
            yield Frame(blocks, spec.input.train, spec.input.test, spec.head.dropout)
        return
    both = len(ratios) == 2
    factor = ratios[-1] ** (1.0 / (len(knobs) - both))  # of each knob; the size's is macs' alone
    if "depth" in knobs:
        depth = times(depth, factor)
    if "size" in knobs and budget.macs is not None:
        side = spec.input.test * math.sqrt(ratios[0] / ratios[1] if both else factor)
        side = min(side, 2.0 * MOST_SIDE)
        sides = sides_around(side, both)
        if "width" not in knobs:
            sides = any_sides(sides[len(sides) // 2])
    for test in sides:
        yield Frame(depth, train_side(spec, test), test, spec.head.dropout)


def tuned(
    spec: Spec,
    frame: Frame,
    budget: Budget,
    knobs: tuple[str, ...],
    quanta: Sequence[int],
    near: float,
    exact: bool = False,
) -> Iterator[Made]:
    """Specs of a frame, of widths that come nearer and nearer to the budget.

    With `exact`, several widths are changed at once, too, which takes longer.
    """
    same = counted(made(spec, frame, 1.0, 1))
    if same is not None:
        yield same
        if budget.miss(same) <= near:
            return
    if "width" not in knobs and FAMILY not in knobs:
        return
    for quantum in quanta:
        best = None
        low, high = math.log(1 / FACTOR), math.log(FACTOR)
        for _ in range(14):
            middle = 0.5 * (low + high)
            found = counted(made(spec, frame, math.exp(middle), quantum))
            if found is None:  # too narrow, or too wide
                low, high = (middle, high) if middle < 0 else (low, middle)
                continue
            best = budget.best((best, found))
            low, high = (middle, high) if budget.less(found) else (low, middle)
        if best is None or (quantum > 8 and min(best.spec.stages.width) < 8 * quantum):
            continue
        if budget.miss(best) <= CLOSE:
            best = _one_by_one(best, spec, budget, quantum, near)
            if exact:
                best = _together(best, spec, budget, quantum, near)
        yield best


def _one_by_one(best: Made, parent: Spec, budget: Budget, quantum: int, near: float) -> Made:
    """Change one width after another by a quantum, and then again, where that comes nearer: those
    of the stages, and of a stem that is not the parent's."""
    wanted = parent.stages.column("group_width")
    tables = [("stages", stage, quantum) for stage in range(parent.stages.count)]
    if best.spec.stem.width != parent.stem.width:
        tables += [("stem", conv, min(quantum, 8)) for conv in range(len(parent.stem.width))]
    for (table, place, unit), sign in [*product(tables, (-1, 1))] * 2:
        if budget.miss(best) <= near:
            break
        widths = list(getattr(best.spec, table).width)
        widths[place] = _within(widths[place] + sign * unit, unit)
        changed = with_fields(best.spec, **{table: {"width": tuple(widths)}})
        found = counted(with_groups(changed, wanted))
        if found is not None and budget.miss(found) < budget.miss(best):
            best = found
    return best


def _together(best: Made, parent: Spec, budget: Budget, quantum: int, near: float) -> Made:
    """Change several widths of stages by a quantum at once."""
    wanted, spec = parent.stages.column("group_width"), best.spec
    signs = product(*[(-1, 0, 1)] * spec.stages.count)
    for changes in islice(signs, MOST_TRIED):
        if budget.miss(best) <= near:
            break
        widths = tuple(
            _within(width + sign * quantum, quantum)
            for width, sign in zip(spec.stages.width, changes, strict=True)
        )
        found = counted(with_groups(with_fields(spec, stages={"width": widths}), wanted))
        best = budget.best((best, found)) or best
    return best


def _within(width: int, least: int) -> int:
    return min(MOST_WIDTH, max(least, width))


def bisected(spec: Spec, budget: Budget, knobs: tuple[str, ...]) -> Made | None:
    """The nearest on the ways of plain bisections of one number each: of the width factor, the
    depths, and the size; None where one number is not enough."""
    if len(budget.ratios(Made(spec, 1, 1))) > 1 or knobs == (FAMILY,):
        return None
    own, size = spec.stages, spec.input

    def sided(factor: float) -> Spec:
        test = min(MOST_SIDE, max(LEAST_SIDE, round(size.test * factor)))
        return with_fields(spec, input={"test": test, "train": train_side(spec, test)})

    ways: dict[str, Callable[[float], Spec]] = {
        "width": lambda factor: with_fields(
            spec, stages={"width_factor": own.width_factor * factor}
        ),
        "depth": lambda factor: with_fields(
            spec, stages={"depth": tuple(max(1, round(n * factor)) for n in own.depth)}
        ),
        "size": sided,
    }
    best: Made | None = None
    for knob in knobs:
        if knob == "size" and budget.macs is None:
            continue
        low, high = math.log(1 / FACTOR), math.log(FACTOR)
        for _ in range(24):
            middle = 0.5 * (low + high)
            try:
                found = counted(ways[knob](math.exp(middle)))
            except InputError:  # a number that is out of the language's range
                found = None
            best = budget.best((best, found))
            less = middle < 0 if found is None else budget.less(found)
            low, high = (middle, high) if less else (low, middle)
    return best
