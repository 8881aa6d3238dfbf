"""The distance of a frequency from its probability that chance alone can explain.

Bernstein's inequality for n independent draws of an event of probability p: the frequency is
further from p than t with a probability of at most 2 · exp(-n t² / (2 p (1 - p) + 2 t / 3)).
`chance` is the t at which that probability is UNLIKELY. A run judges fewer than a million
frequencies, so chance alone makes it fail with a probability below 1e-9.
"""

from __future__ import annotations

import math

UNLIKELY = 1e-16  # probability of a false alarm, for each frequency


def chance(count: int, probability: float) -> float:
    """Bound of |frequency - probability|; 0 where the event is certain or impossible.

    Args:
        count: Number of independent draws.
        probability: Probability of the event.
    """
    variance = probability * (1.0 - probability)
    if variance == 0.0:
        return 0.0
    a = math.log(2.0 / UNLIKELY) / count
    return a / 3.0 + math.sqrt((a / 3.0) ** 2 + 2.0 * a * variance)
