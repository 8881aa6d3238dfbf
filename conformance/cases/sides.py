"""Sides of images at which every stride of a network meets a row too many, or none."""

from __future__ import annotations

from functools import lru_cache
from itertools import count

from nfspec.errors import InputError
from nfspec.plan import INPUT, Convolution, Plan, Pool
from nfspec.plan.counting import shapes


@lru_cache(maxsize=16)
def odd_and_even(plan: Plan, last: int = 1) -> tuple[int, int]:
    """Two sides in px, of a network's images: at the first as many strides as possible leave a
    remainder, which for a stride of 2 is an odd side; at the second as few as possible do.

    Of several such sides it is the least that leaves `last` pixels or more to the last stage. An
    average that counts padding, or padding at the wrong end, shows at the first; a pooling that
    drops a row which it should keep, too. Mistakes in one direction of a network alone show where
    an image's height is one of them and its width the other.
    """
    stride = plan.tap_info["features"].stride or 1
    least = next(side for side in count(stride) if _left(plan, side) >= last)
    sides = [side for side in range(least, least + 2 * stride + 2) if _left(plan, side) >= last]
    remainders = {side: _remainders(plan, side) for side in sides}
    odd = max(sides, key=lambda side: (remainders[side], -side))
    return odd, min(sides, key=lambda side: (remainders[side], side))


def _left(plan: Plan, side: int) -> int:
    """Pixels of a side that are left to the last stage; 0 where the image is too small."""
    try:
        return shapes(plan, side, side)[plan.taps["features"]][0]
    except InputError:
        return 0


def _remainders(plan: Plan, side: int) -> int:
    """The number of operations whose stride does not divide the side of what they read."""
    outputs = shapes(plan, side, side)
    found = 0
    for op in plan.ops:
        if isinstance(op, Convolution | Pool) and op.stride > 1:
            entering = side if op.inputs[0] == INPUT else outputs[op.inputs[0]][0]
            found += entering % op.stride != 0
    return found
