"""Bounds of the rounding errors of a sum, in closed form.

Adding n terms t one after another rounds each partial sum S_k, with errors of at most u·|S_k| that
are as good as independent: together LAMBDA·u·sqrt(Σ S_k²) at most. Over all orders of the terms the
mean of Σ S_k² is (n + 1)/6 · (2·(Σt)² + Σt²) exactly (each S_k is a draw without replacement), so
neither the order that a framework adds in nor the values of single terms have to be known: the sum
and the sum of squares do. Blocked and pairwise orders have fewer partial sums, and err less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LAMBDA = 8.0

Array = NDArray[np.float64]


def partial_sums(n: int, total: Any, squares: Any) -> Any:
    """Mean over all orders of the sum of squared partial sums.

    Args:
        n: Number of terms.
        total: Their sum.
        squares: The sum of their squares.
    """
    return (n + 1) / 6.0 * (2.0 * total**2 + squares)


def summing(n: int, total: Any, squares: Any, unit: float) -> Any:
    """Bound of the error of a sum of n products: each is rounded, and each partial sum.

    Args:
        n: Number of products.
        total: Their sum.
        squares: The sum of their squares.
        unit: Unit roundoff of products and sums.
    """
    return LAMBDA * unit * np.sqrt(partial_sums(n, total, squares) + squares)


def entering(squares: Any, unit: float) -> Any:
    """Bound of the error of a sum of products whose operands are both rounded as they enter.

    Args:
        squares: The sum of the squared products.
        unit: Unit roundoff of the operands; 0 where they enter as they are.
    """
    return LAMBDA * unit * np.sqrt(2.0 * squares)
