"""The table [stages] of a spec: columns with an entry for each stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nfspec.language.fields import (
    MAX_BLOCKS,
    MAX_STAGES,
    Beta,
    Channels,
    Column,
    Dilation,
    Factor,
    Finite,
    Kernels,
    NumberOr,
    Stride,
    Table,
)


class Stages(Table):
    """One column for each property, one entry for each stage; a single value serves all stages."""

    depth: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_BLOCKS)], ...],
        Field(min_length=1, max_length=MAX_STAGES, description="Blocks in each stage."),
    ]
    width: Annotated[
        tuple[Channels, ...],
        Field(
            min_length=1,
            max_length=MAX_STAGES,
            description="Output channels of each stage, before width_factor and rounding.",
        ),
    ]
    width_factor: Annotated[Factor, Field(description="Factor that multiplies every width.")]
    stride: Annotated[Column[Stride], Field(description="Stride of each stage's first block.")]
    dilation: Annotated[
        Column[Dilation],
        Field(
            description=(
                "Distance in px of the taps of the kxk convs; a stage's first one has that of the "
                "stage before, or 1 where it has a stride."
            )
        ),
    ] = 1
    expansion: Annotated[
        Column[Factor],
        Field(
            description="Width of the bottleneck divided by the width that block.mid_from names."
        ),
    ]
    group_width: Annotated[
        Column[NumberOr[Channels, Literal["none"]]],
        Field(
            description=(
                "Channels in each group of the kxk convs; 1: depthwise convs; none: one group."
            )
        ),
    ]
    groups: Annotated[
        Column[NumberOr[Channels, Literal["none"]]],
        Field(
            description=(
                "Number of groups of the kxk convs, in place of group_width; none: as "
                "group_width says."
            )
        ),
    ] = "none"
    kernel: Annotated[
        Kernels,
        Field(
            description=(
                "Kernel side of the kxk convs: a number for all, or for each stage a number or a "
                "pair, for conv1 and conv1b."
            )
        ),
    ]
    alpha: Annotated[Column[Finite], Field(description="Scale of the residual branch.")]
    beta: Annotated[
        Beta,
        Field(
            description=(
                "auto: 1 / expected std; or a number for all, for each stage, or for "
                "each block of a stage."
            )
        ),
    ]
    attention: Annotated[
        Column[Literal["se", "eca", "none"]],
        Field(description="Channel attention in the blocks: squeeze-and-excitation, ECA or none."),
    ]

    @property
    def count(self) -> int:
        return len(self.depth)

    def column(self, name: str) -> tuple[Any, ...]:
        """A column at full length, a single value repeated for every stage."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.count
