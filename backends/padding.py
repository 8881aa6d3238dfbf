"""The padding of `same`, of sides that may be symbols. Imports no framework."""

from __future__ import annotations

from typing import Any


def same_pads(side: Any, kernel: int, stride: int) -> tuple[Any, Any]:
    """The padding that `same` adds before and after a side, px.

    Compilers and exporters trace one size and run others, so there is no branch on the side, no
    negative number, no maximum and no remainder: a padded side is a multiple of the stride, namely
    `(side - 1) // stride` of them, and a constant, an expression that each of them simplifies. If
    windows leave pixels between them, the last of these pixels are padded, too, which no window
    sees.

    Args:
        side: Height or width of the image, px, at least 1: a number, or the symbol that stands
            for one in a trace.
    """
    if stride == 1:
        return (kernel - 1) // 2, kernel // 2  # of any side
    last = stride * ((side - 1) // stride)
    rest = side - 1 - last
    if kernel < stride:  # min(rest, kernel - 1)
        rest = sum((rest + stride - least) // stride for least in range(1, kernel))
    before = (kernel - 1 - rest) // 2
    return before, max(kernel, stride) + last - side - before
