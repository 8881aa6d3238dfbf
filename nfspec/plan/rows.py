"""The numbers of one stage, and of one block, as the resolver hands them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nfspec.language.spec import SCALAR_COLUMNS, Spec


@dataclass(frozen=True)
class StageRow:
    """The entries of one stage in the columns of `[stages]`, which its blocks share.

    `stride` is that of the first block.
    """

    stage: int
    depth: int
    stride: int
    expansion: float
    group_width: int | Literal["none"]
    kernel: int
    alpha: float
    attention: Literal["se", "eca", "none"]


def stage_rows(spec: Spec) -> list[StageRow]:
    """A row for each stage, every column at full length."""
    columns = [spec.stages.column(name) for name in SCALAR_COLUMNS]
    return [
        StageRow(stage, depth, **dict(zip(SCALAR_COLUMNS, entries, strict=True)))
        for stage, (depth, *entries) in enumerate(zip(spec.stages.depth, *columns, strict=True))
    ]


@dataclass(frozen=True)
class BlockNumbers:
    """The numbers of one block that its stage's row does not have; see `Block`."""

    name: str
    index: int
    in_channels: int
    mid_channels: int
    requested_mid_channels: int
    out_channels: int
    groups: int
    stride: int
    beta: float
    expected_variance: float
    drop_rate: float
