"""Depths and sizes of images that a scaled network may have, before its widths."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from nfspec.language.fields import MAX_BLOCKS
from nfspec.language.loader import load
from nfspec.language.spec import Spec

SIDES = 32  # sides are multiples of it, px, where widths make up for the rest
LEAST_SIDE, MOST_SIDE = 16, 8_192


@dataclass(frozen=True)
class Frame:
    """All of a candidate but its widths."""

    depth: tuple[int, ...]
    train: int
    test: int
    dropout: float


def times(depth: tuple[int, ...], factor: float) -> tuple[int, ...]:
    """Depths times a factor, as many blocks as a network may have at most."""
    most = MAX_BLOCKS / sum(depth)
    if factor >= most:
        return tuple(int(blocks * most) for blocks in depth)
    found = tuple(max(1, round(blocks * factor)) for blocks in depth)
    return found if sum(found) <= MAX_BLOCKS else times(depth, most)


def depths(depth: tuple[int, ...], factor: float) -> Iterator[tuple[int, ...]]:
    """Depths of about a factor, and of some more and some less."""
    tried = {times(depth, factor * 2 ** (n / 16)) for n in range(-24, 25)}
    yield from sorted(tried)


def sides_around(side: float, more: bool) -> list[int]:
    """The multiple of 32 px that is nearest to a side; where more are wanted, two more each way, of
    steps of an eighth of the side at most."""
    step = next(n for n in (32, 16, 8, 4, 2, 1) if not more or n == 1 or side >= 8 * n)
    middle, around = round(side / step), 2 if more else 0
    sides = (step * n for n in range(middle - around, middle + around + 1))
    return sorted({min(max(each, SIDES), MOST_SIDE) for each in sides})


def any_sides(side: int) -> list[int]:
    """Sides around one, in coarse steps first."""
    low, high = side * 3 // 4, min(MOST_SIDE, side * 5 // 4 + SIDES)
    steps = (32, 16, 8, 4, 2, 1)
    return [n for step in steps for n in range(low // step * step, high, step) if n >= LEAST_SIDE]


def train_side(spec: Spec, test: int) -> int:
    """The side of training images, in proportion."""
    side = spec.input.train * test / spec.input.test
    step = SIDES if test % SIDES == 0 else 1
    return (
        spec.input.train if test == spec.input.test else max(LEAST_SIDE, round(side / step) * step)
    )


@cache
def _published() -> tuple[Frame, ...]:
    """Depth, sizes and dropout of F0 to F7."""
    specs = [load(f"nfnet-f{n}") for n in range(8)]
    return tuple(
        Frame(each.stages.depth, each.input.train, each.input.test, each.head.dropout)
        for each in specs
    )


def family(spec: Spec) -> Iterator[Frame]:
    """The members of a family as F0 to F7 are made; beyond F7 each has 32 px more."""
    members, common = _published(), math.gcd(*spec.stages.depth)
    unit = tuple(blocks // common for blocks in spec.stages.depth)
    own = members[min(common, len(members)) - 1]
    for n in range(16):
        table = members[min(n, len(members) - 1)]
        more = 32 * max(0, n - len(members) + 1)
        test = round(spec.input.test * (table.test + more) / own.test / SIDES) * SIDES
        train = round(spec.input.train * (table.train + more) / own.train / SIDES) * SIDES
        published = spec.family == "nfnet" and spec.head.dropout in {m.dropout for m in members}
        dropout = table.dropout if published else spec.head.dropout
        depth = tuple(blocks * (n + 1) for blocks in unit)
        if n + 1 == common:
            test, train, dropout = spec.input.test, spec.input.train, spec.head.dropout
        yield Frame(depth, max(SIDES, train), max(SIDES, test), dropout)
