"""The time of a training step as a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nfspec.arguments import whole
from nfspec.cost.accelerators import Accelerator, named
from nfspec.cost.memory import width_of
from nfspec.cost.roofline import step
from nfspec.errors import InputError
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve

MOST_SECONDS = 1e4
TRIES = 12  # networks that are looked at
FAR = 16.0  # factor of multiply-accumulates, where nothing is known of the other side


@dataclass(frozen=True)
class Pace:
    """A device that trains.

    Attributes:
        accelerator: The device.
        batch: Images in a step.
        precision: Dtype of the passes; the recipe's, or float32 without a recipe, if None.
    """

    accelerator: Accelerator
    batch: int
    precision: str | None

    def seconds(self, spec: Spec) -> float:
        """The time of a step by the model of `nfspec cost`; infinite where no image fits."""
        plan = resolve(spec)
        kind = self.precision or (plan.recipe.precision if plan.recipe else "float32")
        try:
            return step(plan, self.accelerator, self.batch, precision=kind).seconds
        except InputError:
            return math.inf


def pace_of(accelerator: str | None, batch: int, precision: str | None) -> Pace:
    """The device that a user names.

    Raises:
        InputError: Something is wrong with it, or it is missing.
    """
    if accelerator is None:
        raise InputError("step: give accelerator, too: the device whose step is to take so long")
    if accelerator == "cpu":
        raise InputError("accelerator: nfspec cost alone measures the cpu; name another device")
    if precision is not None:
        width_of(precision)
    return Pace(named(accelerator), whole("batch", batch, 1, "images"), precision)


def at_pace(
    wanted: float,
    first: float,
    within: tuple[float, float],
    seconds_at: Callable[[float], float],
    near: float,
) -> float:
    """The multiply-accumulates at which a step takes nearest to a time.

    Args:
        wanted: Seconds of a step.
        first: Multiply-accumulates to try first.
        within: The least and the most of them.
        seconds_at: From multiply-accumulates to the seconds of a network that has them.
        near: Share of the time at which the search ends.
    """
    least, most = map(math.log, within)
    low, high = -math.inf, math.inf  # logarithms between which the time is reached
    place = min(max(math.log(first), least), most)
    tried: dict[float, float] = {}
    while len(tried) < TRIES and place not in tried:
        error = math.log(seconds_at(math.exp(place)) / wanted)
        tried[place] = abs(error)
        if abs(math.expm1(error)) <= near:
            break
        low, high = (place, high) if error < 0 else (low, place)
        place -= error  # time goes with multiply-accumulates, nearly
        if not low < place < high:
            place = 0.5 * (max(low, high - 2 * math.log(FAR)) + min(high, low + 2 * math.log(FAR)))
        place = min(max(place, least), most)
    return math.exp(min(tried, key=lambda each: tried[each]))
