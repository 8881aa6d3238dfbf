"""Specs with other depths, sizes and widths, and their counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nfspec.design.frames import Frame
from nfspec.errors import InputError, SpecError
from nfspec.language.fields import MAX_BLOCKS
from nfspec.language.spec import Spec
from nfspec.plan.checks import MAX_PARAMETERS
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve

MOST_CUT = 0.125  # of a bottleneck's width, which whole groups may take away
MOST_WIDTH = 65_536
DIFFERENT = 2  # blocks of a stage: the later ones are like the second


@dataclass(frozen=True)
class Made:
    """A spec, and its multiply-accumulates and parameters at its test size."""

    spec: Spec
    macs: int
    parameters: int


def counted(spec: Spec | None) -> Made | None:
    """The counts of a spec; None if it makes no network, as where a width is too narrow.

    A network of many blocks is counted by one of few, and so many times its second blocks.
    """
    if spec is None or sum(spec.stages.depth) > MAX_BLOCKS:
        return None
    try:
        found = count(resolve(_shortened(spec)))
    except (SpecError, InputError):
        return None
    macs, parameters = found.macs, found.parameters
    rows = {row.name: row for row in found.blocks}
    for stage, blocks in enumerate(spec.stages.depth):
        more = blocks - DIFFERENT
        if more > 0 and f"stages.{stage}.blocks.{DIFFERENT}" not in rows:
            row = rows[f"stages.{stage}.blocks.{DIFFERENT - 1}"]
            macs, parameters = macs + more * row.macs, parameters + more * row.parameters
    return Made(spec, macs, parameters) if parameters <= MAX_PARAMETERS else None


def _shortened(spec: Spec) -> Spec:
    """A spec without the blocks that are like those before them, if it names none of its blocks."""
    beta, depth = spec.stages.beta, spec.stages.depth
    if isinstance(beta, tuple) and any(isinstance(of_stage, tuple) for of_stage in beta):
        return spec
    few = tuple(min(blocks, DIFFERENT) for blocks in depth)
    patterns: dict[str, Any] = {"exclude": (), "names": {}}  # they may name a block that is gone
    return with_fields(spec, stages={"depth": few}, agc=patterns)


def with_fields(spec: Spec, **tables: dict[str, Any]) -> Spec:
    """A spec with some fields of its tables replaced."""
    new = {name: getattr(spec, name).model_copy(update=of) for name, of in tables.items()}
    return spec.model_copy(update=new)


def made(spec: Spec, frame: Frame, factor: float, quantum: int) -> Spec | None:
    """The spec of a frame, with widths times a factor, in multiples of `quantum`."""
    changed = with_fields(
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
    return with_groups(with_fields(changed, **new), stages.column("group_width"))


def with_groups(spec: Spec, wanted: tuple[Any, ...]) -> Spec | None:
    """A spec whose groups fit its bottlenecks: see `_group`.

    Args:
        spec: The spec.
        wanted: The parent's width of groups in each stage.
    """
    try:
        plain = with_fields(_shortened(spec), stages={"group_width": "none"})
        blocks = resolve(plain).blocks
    except SpecError:
        return None
    groups = []
    for stage, width in enumerate(wanted):
        middles = {block.requested_mid_channels for block in blocks if block.stage == stage}
        groups.append(width if width == "none" else _group(width, middles, spec))
    same = len(set(groups)) == 1
    return with_fields(spec, stages={"group_width": groups[0] if same else tuple(groups)})


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
