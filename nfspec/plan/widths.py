"""The nearest widths that work, for messages about those that do not."""

from __future__ import annotations

import math

from nfspec.language.spec import Spec
from nfspec.plan.arithmetic import rounded
from nfspec.plan.rows import stage_rows

LARGEST = 16.0  # times the width_factor that does not work
STEPS = 1_000  # a width_factor is suggested in steps of a thousandth
TRIED = 1_000  # of these, where a width has to divide


def group_hint(spec: Spec, stage: int) -> str:
    """Words for the nearest width of groups, and the nearest width_factor, that work in a stage.

    Where one width of groups serves all stages they work in all, and where that would be less than
    half of what was asked for, each stage has its own.
    """
    column = spec.stages.group_width
    listed = isinstance(column, tuple)
    wanted = spec.stages.column("group_width")[stage]
    middles = _bottlenecks(spec, spec.stages.width_factor)
    stages = [stage] if listed else sorted(middles)
    nearest: int | list[int] = _nearest(spec, wanted, [n for s in stages for n in middles[s]])
    if not listed and nearest < wanted / 2:
        each = [_nearest(spec, wanted, middles[s]) for s in stages]
        nearest = each if len(set(each)) > 1 else each[0]
    hints = [f"stages.group_width{f'[{stage}]' if listed else ''} = {nearest}"]
    if (factor := _factor(spec, stages, wanted)) is not None:
        hints.append(f"stages.width_factor = {factor:g}")
    return f"nearest that works: {', or '.join(hints)}"


def _nearest(spec: Spec, wanted: int, middles: list[int]) -> int:
    """The widest groups, up to a width, that fit bottlenecks; 1 if none do."""
    if spec.rounding.groups == "floor":
        return max(1, min(wanted, *middles))
    common = math.gcd(*middles)
    return next((n for n in range(min(wanted, common), 0, -1) if common % n == 0), 1)


def _factor(spec: Spec, stages: list[int], group: int) -> float | None:
    """The least width_factor above the present one at which a width of groups works; None if there
    is none near."""
    exact, now = spec.rounding.groups == "exact", spec.stages.width_factor

    def fits(n: int) -> bool:
        middles = _bottlenecks(spec, n / STEPS)
        found = [middle for stage in stages for middle in middles[stage]]
        return all(group <= middle and not (exact and middle % group) for middle in found)

    first, last = math.floor(now * STEPS) + 1, math.floor(min(LARGEST * now, 1000.0) * STEPS)
    if exact:
        return next((n / STEPS for n in range(first, min(last, first + TRIED)) if fits(n)), None)
    if first > last or not fits(last):
        return None
    while first < last:  # bisection, since wider bottlenecks fit where narrower ones do
        middle = (first + last) // 2
        first, last = (first, middle) if fits(middle) else (middle + 1, last)
    return last / STEPS


def _bottlenecks(spec: Spec, factor: float) -> dict[int, list[int]]:
    """Stage to the widths of its bottlenecks: that of the first block, and of those after it."""
    rule, previous = spec.rounding, spec.stem.width[-1]

    def width_of(value: float) -> int:
        return rounded(value, rule.channels, rule.divisor, 0.9)

    found: dict[int, list[int]] = {}
    for row in stage_rows(spec):
        width = width_of(spec.stages.width[row.stage] * factor)
        for block in range(min(2, row.depth)):
            expansion, first = row.expansion, spec.block.first_expansion
            if (row.stage, block) == (0, 0) and first != "same":
                expansion = first
            base = previous if block == 0 and spec.block.mid_from == "in" else width
            found.setdefault(row.stage, []).append(width_of(base * expansion))
        previous = width
    return found
