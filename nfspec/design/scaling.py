"""A spec at a budget: other widths, depths and sizes of images, and all conventions kept.

Multiply-accumulates go with width², depth and side²; parameters with width² and depth. Widths come
last: they are what makes up for whole blocks and whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from nfspec.arguments import instance, number
from nfspec.design.frames import Frame, any_sides, depths, family, sides_around, times, train_side
from nfspec.design.pacing import MOST_SECONDS, Pace, at_pace, pace_of
from nfspec.errors import InputError, SpecError
from nfspec.language.differences import Path, spec_fields
from nfspec.language.spec import Spec
from nfspec.plan.counting import Count, count
from nfspec.plan.resolver import resolve

KNOBS = ("width", "depth", "size")
FAMILY = "family"
# Widths are multiples of the first of these that comes near the budget, and is an eighth of the
# narrowest stage at most.
QUANTA = (64, 32, 16, 8, 4, 2, 1)
NEAR = 0.01  # of the budget: no better widths are looked for
MOST_CUT = 0.125  # of a bottleneck's width, which whole groups may take away
MOST_MACS, MOST_PARAMETERS = 1e16, 1e11
MOST_WIDTH = 65_536
FACTOR = 256.0  # largest change of widths, up and down

_Found = tuple[Spec, Count]


@dataclass(frozen=True)
class Scaled:
    """A spec at a budget.

    Attributes:
        spec: The new spec; it has its parent's name.
        parent: The spec that it was made of.
        counted, before: Counts of both at their test sizes.
        miss: Largest distance from a budget, as a share of it.
        seconds: Time of a step; None where none was asked for.
    """

    spec: Spec
    parent: Spec
    counted: Count
    before: Count
    miss: float
    seconds: float | None = None

    @property
    def changed(self) -> dict[Path, Any]:
        """Path of each field that differs from the parent's to its new value."""
        old = spec_fields(self.parent)
        new = spec_fields(self.spec).items()
        return {path: value for path, value in new if old.get(path) != value}


@dataclass(frozen=True)
class _Budget:
    """The amounts that are asked for; None where nothing is."""

    macs: float | None
    parameters: float | None

    def ratios(self, counted: Count) -> list[float]:
        """Logarithms of what there is over what is asked for."""
        pairs = ((counted.macs, self.macs), (counted.parameters, self.parameters))
        return [math.log(found / asked) for found, asked in pairs if asked is not None]

    def miss(self, counted: Count) -> float:
        return max(abs(math.expm1(ratio)) for ratio in self.ratios(counted))


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
        return _counted_out(spec, _Budget(macs, params), knobs)
    number("step", step, 0.0, MOST_SECONDS, above=True)
    return _paced(spec, _Budget(macs, params), knobs, step, pace_of(accelerator, batch, precision))


def _paced(
    spec: Spec, budget: _Budget, knobs: tuple[str, ...], wanted: float, pace: Pace
) -> Scaled:
    """The network whose step takes a time, or that of the budget where its step takes less."""
    if budget.macs is not None:
        found = _counted_out(spec, budget, knobs)
        seconds = pace.seconds(found.spec)
        if seconds <= wanted * (1 + NEAR):
            return replace(found, seconds=seconds)
    best = _searched(spec, budget.parameters, knobs, wanted, pace)
    if budget.parameters is None and best.miss > NEAR and {"width", FAMILY} & {*knobs}:
        # Whole blocks and sizes make the time jump; widths alone come nearer.
        finer = _searched(best.spec, None, ("width",), wanted, pace)
        finer = replace(finer, parent=spec, before=best.before)
        best = min(best, finer, key=lambda each: each.miss)
    return best


def _searched(
    spec: Spec, parameters: float | None, knobs: tuple[str, ...], wanted: float, pace: Pace
) -> Scaled:
    """The network of a budget of multiply-accumulates whose step is the nearest to a time."""

    @cache
    def of(macs: float) -> tuple[Scaled, float]:
        found = _counted_out(spec, _Budget(macs, parameters), knobs)
        return found, pace.seconds(found.spec)

    first = count(resolve(spec)).macs * min(1.0, wanted / pace.seconds(spec))
    best, seconds = of(at_pace(wanted, first, (1.0, MOST_MACS), lambda macs: of(macs)[1], NEAR))
    miss = abs(seconds / wanted - 1)
    if parameters is not None:
        miss = max(miss, _Budget(None, parameters).miss(best.counted))
    return replace(best, miss=miss, seconds=seconds)


def _counted_out(spec: Spec, budget: _Budget, knobs: tuple[str, ...]) -> Scaled:
    """The network that is nearest to a budget of what is counted."""
    before = count(resolve(spec))
    best: _Found | None = None
    for frame in _frames(spec, before, budget, knobs):
        for found in _tuned(spec, frame, budget, knobs):
            best = min(filter(None, (best, found)), key=lambda each: budget.miss(each[1]))
        if best is not None and budget.miss(best[1]) <= NEAR:
            break
    if best is None:
        raise InputError(f"{spec.name}: no network of this kind is near the budget")
    new, counted = best
    return Scaled(new, spec, counted, before, budget.miss(counted))


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


def _frames(spec: Spec, before: Count, budget: _Budget, knobs: tuple[str, ...]) -> Iterator[Frame]:
    """Depths and sizes worth trying."""
    depth, sides = spec.stages.depth, [spec.input.test]
    if knobs == (FAMILY,):
        counts = {each: _counted(_made(spec, each, 1.0, 1)) for each in family(spec)}
        misses = {each: budget.miss(found[1]) for each, found in counts.items() if found}
        yield min(misses, key=lambda each: misses[each])
        return
    ratios = [math.exp(-ratio) for ratio in budget.ratios(before)]
    if knobs == ("depth",):
        for blocks in depths(depth, ratios[-1]):
            yield Frame(blocks, spec.input.train, spec.input.test, spec.head.dropout)
        return
    both = len(ratios) == 2
    factor = ratios[-1] ** (1.0 / (len(knobs) - both))  # of each knob; the size's is macs' alone
    if "depth" in knobs:
        depth = times(depth, factor)
    if "size" in knobs and budget.macs is not None:
        sides = sides_around(
            spec.input.test * math.sqrt(ratios[0] / ratios[1] if both else factor), both
        )
        if "width" not in knobs:
            sides = any_sides(sides[len(sides) // 2])
    for test in sides:
        yield Frame(depth, train_side(spec, test), test, spec.head.dropout)


def _tuned(spec: Spec, frame: Frame, budget: _Budget, knobs: tuple[str, ...]) -> Iterator[_Found]:
    """Specs of a frame, of widths that come nearer and nearer to the budget."""
    same = _counted(_made(spec, frame, 1.0, 1))
    if same is not None:
        yield same
        if budget.miss(same[1]) <= NEAR:
            return
    if "width" not in knobs and FAMILY not in knobs:
        return
    for quantum in QUANTA:
        best = None
        low, high = math.log(1 / FACTOR), math.log(FACTOR)
        for _ in range(14):
            middle = 0.5 * (low + high)
            found = _counted(_made(spec, frame, math.exp(middle), quantum))
            if found is None:  # too narrow, or too wide
                low, high = (middle, high) if middle < 0 else (low, middle)
                continue
            best = min(filter(None, (best, found)), key=lambda each: budget.miss(each[1]))
            low, high = (middle, high) if sum(budget.ratios(found[1])) < 0 else (low, middle)
        if best is None or (quantum > 8 and min(best[0].stages.width) < 8 * quantum):
            continue
        best = _one_by_one(best, spec, budget, quantum)
        yield best
        if budget.miss(best[1]) <= NEAR:
            return


def _one_by_one(best: _Found, parent: Spec, budget: _Budget, quantum: int) -> _Found:
    """Change one width after another by a quantum, and then again, where that comes nearer: those
    of the stages, and of a stem that is not the parent's."""
    wanted = parent.stages.column("group_width")
    tables = [("stages", stage, quantum) for stage in range(parent.stages.count)]
    if best[0].stem.width != parent.stem.width:
        tables += [("stem", conv, min(quantum, 8)) for conv in range(len(parent.stem.width))]
    for (table, place, unit), sign in [*product(tables, (-1, 1))] * 2:
        if budget.miss(best[1]) <= NEAR:
            break
        widths = list(getattr(best[0], table).width)
        widths[place] = max(unit, widths[place] + sign * unit)
        changed = _with(best[0], **{table: {"width": tuple(widths)}})
        found = _counted(_with_groups(changed, wanted))
        if found is not None and budget.miss(found[1]) < budget.miss(best[1]):
            best = found
    return best


def _counted(spec: Spec | None) -> _Found | None:
    if spec is None:
        return None
    try:
        return spec, count(resolve(spec))
    except (SpecError, InputError):  # a width too narrow, an image too small
        return None


def _with(spec: Spec, **tables: dict[str, Any]) -> Spec:
    """A spec with some fields of its tables replaced."""
    new = {name: getattr(spec, name).model_copy(update=of) for name, of in tables.items()}
    return spec.model_copy(update=new)


def _made(spec: Spec, frame: Frame, factor: float, quantum: int) -> Spec | None:
    """The spec of a frame, with widths times a factor, in multiples of `quantum`."""
    changed = _with(
        spec,
        input={"train": frame.train, "test": frame.test},
        stages={"depth": frame.depth},
        head={"dropout": frame.dropout},
    )
    if factor == 1.0:
        return changed
    stages, stem, head = spec.stages, spec.stem, spec.head

    def wide(width: float, unit: int = quantum) -> int:
        return min(MOST_WIDTH, max(unit, round(width * factor / unit) * unit))

    widths = tuple(wide(width * stages.width_factor) for width in stages.width)
    new: dict[str, dict[str, Any]] = {"stages": {"width": widths, "width_factor": 1.0}}
    if factor < 1.0:  # wider networks keep their stem, as F0+ to F7+ keep most of theirs
        new["stem"] = {"width": tuple(wide(width, min(quantum, 8)) for width in stem.width)}
    if head.conv == "width":
        new["head"] = {"conv_width": wide(head.conv_width)}
    return _with_groups(_with(changed, **new), stages.column("group_width"))


def _with_groups(spec: Spec, wanted: tuple[Any, ...]) -> Spec | None:
    """A spec whose groups fit its bottlenecks: see `_group`.

    Args:
        spec: The spec.
        wanted: The parent's width of groups in each stage.
    """
    try:
        blocks = resolve(_with(spec, stages={"group_width": "none"})).blocks
    except SpecError:
        return None
    groups = []
    for stage, width in enumerate(wanted):
        middles = {block.requested_mid_channels for block in blocks if block.stage == stage}
        groups.append(width if width == "none" else _group(width, middles, spec))
    same = len(set(groups)) == 1
    return _with(spec, stages={"group_width": groups[0] if same else tuple(groups)})


def _group(width: int, middles: set[int], spec: Spec) -> int:
    """A width of groups for some bottlenecks.

    It is the parent's where that takes little from them; else a multiple of 8, or of 4 or 2 where
    there is none: the widest that takes nothing, if that is half of the parent's or of a
    bottleneck, or else the widest that takes little.
    """
    little = 0.0 if spec.rounding.groups == "exact" else MOST_CUT
    most = min(width, *middles)

    def fits(group: int, share: float) -> bool:
        return all(group <= mid and mid % group <= share * mid for mid in middles)

    if fits(width, little):
        return width
    for unit in (8, 4, 2, 1):
        for share, least in ((0.0, most // 2), (little, 0)):
            for group in range(most // unit * unit, least, -unit):
                if fits(group, share):
                    return group
    return 1
