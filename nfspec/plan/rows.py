"""The numbers of one stage, and of one block, as the resolver hands them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nfspec.language.spec import SCALAR_COLUMNS, Spec


@dataclass(frozen=True)
class StageRow:
    """The entries of one stage in the columns of `[stages]`, which its blocks share.

    `stride` and `first_dilation` are those of the first block's first kxk conv.
    """

    stage: int
    depth: int
    first_dilation: int
    stride: int
    dilation: int
    expansion: float
    group_width: int | Literal["none"]
    groups: int | Literal["none"]
    kernel: int | tuple[int, ...]
    alpha: float
    attention: Literal["se", "eca", "none"]

    @property
    def kernels(self) -> tuple[int, int]:
        """Sides of the kernels of conv1 and conv1b."""
        first, *more = self.kernel if isinstance(self.kernel, tuple) else (self.kernel,)
        return first, more[0] if more else first


def stage_rows(spec: Spec) -> list[StageRow]:
    """A row for each stage, every column at full length."""
    columns = [spec.stages.column(name) for name in SCALAR_COLUMNS]
    # A stride that became dilation: the first conv still sees what the stage before it made.
    before, strides = (1, *spec.stages.column("dilation")), spec.stages.column("stride")
    first = [n if stride == 1 else 1 for n, stride in zip(before, strides, strict=False)]
    return [
        StageRow(stage, depth, first[stage], **dict(zip(SCALAR_COLUMNS, entries, strict=True)))
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
    first_dilation: int
    beta: float
    expected_variance: float
    drop_rate: float
