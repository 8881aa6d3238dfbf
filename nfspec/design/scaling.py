"""A spec at a budget: other widths, depths and sizes of images, and all conventions kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nfspec.arguments import instance, number
from nfspec.console import compact
from nfspec.design.pacing import MOST_SECONDS, Pace, at_pace, pace_of
from nfspec.design.reach import end, fields_at_end, reached
from nfspec.design.searching import FAMILY, KNOBS, NEAR, Budget, nearest
from nfspec.errors import InputError
from nfspec.language.differences import Path, spec_fields
from nfspec.language.spec import Spec
from nfspec.plan.counting import Count, count
from nfspec.plan.resolver import resolve

MOST_MACS, MOST_PARAMETERS = 1e30, 1e30
LARGEST = 1e17  # multiply-accumulates of the largest network whose step is looked at

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Scaled:
    """A spec at a budget.

    Attributes:
        spec: The new spec; it has its parent's name.
        parent: The spec that it was made of.
        counted, before: Counts of both at their test sizes.
        miss: Largest distance from a budget, as a share of it.
        seconds: Time of a step; None where none was asked for.
        limit: A sentence on the fields that end the search where the budget is out of reach.
    """

    spec: Spec
    parent: Spec
    counted: Count
    before: Count
    miss: float
    seconds: float | None = None
    limit: str = ""

    @property
    def changed(self) -> dict[Path, Any]:
        """Path of each field that differs from the parent's to its new value."""
        old = spec_fields(self.parent)
        new = spec_fields(self.spec).items()
        return {path: value for path, value in new if old.get(path) != value}


def scale(
    spec: Spec,
    macs: float | None = None,
    params: float | None = None,
    by: Sequence[str] = KNOBS,
    *,
    step: float | None = None,
    accelerator: str | None = None,
    batch: int = 256,
    precision: str | None = None,
    progress: Progress | None = None,
) -> Scaled:
    """Scale a spec to a budget.

    Args:
        spec: The spec.
        macs: Multiply-accumulates of an image at the test size.
        params: Parameters.
        by: The knobs: `width`, `depth` and `size` share the change evenly, as a factor of
            multiply-accumulates; or `family` alone: depths are multiples of the shortest, and sizes
            grow with the multiple, as in F0 to F7 (Brock et al. 2021, arXiv:2102.06171, table 1),
            and widths make up for the rest. With both budgets, sizes are what `macs` needs.
        step: Seconds of a training step, as `nfspec cost` estimates it. With `macs`, the network is
            that of the smaller budget.
        accelerator: Name of the device of `step`.
        batch: Images in a step.
        precision: Dtype of a step; the recipe's, or float32 without a recipe, if None.
        progress: Called with the network that is tried, of several, for `step`.

    Raises:
        InputError: An argument has a wrong type or value, or no such network can be made.
    """
    instance("spec", spec, Spec, "nfspec.load")
    knobs = _checked(by, macs if step is None else step, params)
    if macs is not None:
        number("macs", macs, 1.0, MOST_MACS)
    if params is not None:
        number("params", params, 1.0, MOST_PARAMETERS)
    if "depth" in knobs or FAMILY in knobs:
        _require_free_betas(spec)
    if step is None:
        return _counted_out(spec, Budget(macs, params), knobs)
    number("step", step, 0.0, MOST_SECONDS, above=True)
    pace = pace_of(accelerator, batch, precision)
    return _paced(spec, Budget(macs, params), knobs, step, pace, progress or (lambda _: None))


def _paced(
    spec: Spec,
    budget: Budget,
    knobs: tuple[str, ...],
    wanted: float,
    pace: Pace,
    progress: Progress,
) -> Scaled:
    """The network whose step takes a time, or that of the budget where its step takes less."""
    if budget.macs is not None:
        found = _counted_out(spec, budget, knobs)
        seconds = pace.seconds(found.spec)
        if seconds <= wanted * (1 + NEAR):
            return replace(found, seconds=seconds)
    least = end(spec, knobs, larger=False)
    if least is not None and (seconds := pace.seconds(least.spec)) > wanted * (1 + NEAR):
        ends = fields_at_end(least.spec, knobs, larger=False)
        limit = f"a step of {spec.name} takes at least about {_time(seconds)}, with {ends}"
        counted, before = (count(resolve(each)) for each in (least.spec, spec))
        miss = abs(seconds / wanted - 1)
        return Scaled(least.spec, spec, counted, before, miss, seconds, limit)
    best = _searched(spec, budget.parameters, knobs, wanted, pace, progress)
    if budget.parameters is None and best.miss > NEAR and {"width", FAMILY} & {*knobs}:
        # Whole blocks and sizes make the time jump; widths alone come nearer.
        finer = _searched(best.spec, None, ("width",), wanted, pace, progress)
        finer = replace(finer, parent=spec, before=best.before)
        best = min(best, finer, key=lambda each: each.miss)
    return best


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _searched(
    spec: Spec,
    parameters: float | None,
    knobs: tuple[str, ...],
    wanted: float,
    pace: Pace,
    progress: Progress,
) -> Scaled:
    """The network of a budget of multiply-accumulates whose step is the nearest to a time."""

    @cache
    def of(macs: float) -> tuple[Scaled, float]:
        progress(f"a network of {compact(int(macs))} multiply-accumulates")
        found = _counted_out(spec, Budget(macs, parameters), knobs, exact=False)
        seconds = pace.seconds(found.spec)
        too_large.append(math.isinf(seconds))
        return found, seconds

    too_large: list[bool] = []
    first = count(resolve(spec)).macs * min(1.0, wanted / pace.seconds(spec))
    best, seconds = of(at_pace(wanted, first, (1.0, LARGEST), lambda macs: of(macs)[1], NEAR))
    miss = abs(seconds / wanted - 1)
    limit = best.limit
    if any(too_large) and seconds < wanted * (1 - NEAR):
        limit = (
            f"a step of {spec.name} takes at most about {_time(seconds)} by {', '.join(knobs)}: "
            f"of a much larger network, not one image fits the memory of {pace.accelerator.name}"
        )
    if parameters is not None:
        miss = max(miss, Budget(None, parameters).miss(best.counted))
    return replace(best, miss=miss, seconds=seconds, limit=limit)


def _counted_out(spec: Spec, budget: Budget, knobs: tuple[str, ...], exact: bool = True) -> Scaled:
    """The network that is nearest to a budget of what is counted."""
    found, limit = nearest(spec, budget, knobs, exact), ""
    if budget.miss(found) > NEAR:
        found, limit = reached(spec, budget, knobs, found)
    counted, before = (count(resolve(each)) for each in (found.spec, spec))
    return Scaled(found.spec, spec, counted, before, budget.miss(counted), limit=limit)


def _checked(by: Sequence[str], macs: float | None, params: float | None) -> tuple[str, ...]:
    knobs = tuple(by)
    if macs is None and params is None:
        raise InputError("give a budget: macs, params or step")
    known = set(knobs) <= set(KNOBS) or knobs == (FAMILY,)
    if not knobs or not known:
        raise InputError(f"by: expected some of {', '.join(KNOBS)}, or family; found {knobs}")
    if macs is None and knobs == ("size",):
        raise InputError("by: sizes change no parameters; give macs, or width or depth")
    if macs is not None and params is not None and "size" not in knobs and knobs != (FAMILY,):
        raise InputError("by: both budgets at once need size, too")
    return knobs


def _require_free_betas(spec: Spec) -> None:
    beta = spec.stages.beta
    if isinstance(beta, tuple) and any(isinstance(of_stage, tuple) for of_stage in beta):
        raise InputError(
            f"{spec.name}: stages.beta lists a number for each block, so that depths cannot "
            'change; set stages.beta = "auto", or leave depth out of by'
        )
