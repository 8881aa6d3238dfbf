"""The numbers of a residual block, beside the operations that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Block:
    """The derived numbers of one residual block, as `nfspec show` prints them.

    `residual` names the operation whose output is the residual branch before stochastic depth,
    skip gain and alpha. `expected_variance` is that of the block's input at initialisation. A
    shortcut that is a `pool_conv` has an average pool before its conv. `kernel` and
    `first_dilation` are conv1's, `second_kernel` is conv1b's, and `dilation` that of conv1b and of
    the stage's later blocks.
    """

    name: str
    stage: int
    index: int
    in_channels: int
    mid_channels: int
    requested_mid_channels: int
    out_channels: int
    groups: int
    kernel: int
    second_kernel: int
    stride: int
    dilation: int
    first_dilation: int
    alpha: float
    beta: float
    expected_variance: float
    attention: str
    attention_size: int  # SE: hidden channels; ECA: kernel; none: 0
    drop_rate: float
    shortcut: Literal["identity", "conv", "pool_conv"]
    residual: str
