"""Arithmetic on values that carry a bound of their error, for operations of a few small steps.

Each step passes on the errors of what it reads, by its derivative, and adds its own rounding under
a label. Errors that meet in a sum are taken as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.bounds.sums import entering, summing
from nfspec.conformance.cases.precision import Precision

Array = NDArray[np.float64]
Terms = dict[str, Array]


def together(*several: Mapping[str, Any]) -> Terms:
    """Terms of several sources, added label by label."""
    total: Terms = {}
    for terms in several:
        for label, term in terms.items():
            total[label] = total[label] + term if label in total else term
    return total


def scaled(terms: Terms, by: Callable[[Array], Any]) -> Terms:
    return {label: by(term) for label, term in terms.items()}


@dataclass(frozen=True)
class Bounded:
    """An exact value and, by label, terms that bound the error of a computed one."""

    value: Array
    terms: Terms = field(default_factory=dict)

    def rounded(self, label: str, unit: float, times: float = 1.0, least: float = 0.0) -> Bounded:
        """The same, rounded `times` times."""
        own = times * unit * np.abs(self.value) + least
        return Bounded(self.value, together(self.terms, {label: own}))

    def plus(self, other: Bounded) -> Bounded:
        return Bounded(self.value + other.value, together(self.terms, other.terms))

    def times(self, other: Bounded) -> Bounded:
        """Elementwise, with broadcasting."""
        return Bounded(
            self.value * other.value,
            together(
                scaled(self.terms, lambda term: term * np.abs(other.value)),
                scaled(other.terms, lambda term: term * np.abs(self.value)),
            ),
        )

    def by(self, factor: float) -> Bounded:
        """Times an exact number."""
        return Bounded(factor * self.value, scaled(self.terms, lambda term: abs(factor) * term))

    def over_image(self) -> Bounded:
        """(N, C) to (N, 1, 1, C)."""
        return self.map(lambda array: array[:, None, None, :])

    def map(self, shape: Callable[[Array], Array]) -> Bounded:
        """Move elements about, alike in value and terms."""
        return Bounded(shape(self.value), scaled(self.terms, shape))

    def function(self, value: Array, slope: Array, label: str, own: Array) -> Bounded:
        """Through a function, given its value and slope here; `own` bounds its evaluation."""
        return Bounded(
            value,
            together(scaled(self.terms, lambda term: term * np.abs(slope)), {label: own}),
        )


def root(term: Array) -> Array:
    return np.sqrt(term)


def mean_over_image(x: Bounded, label: str, precision: Precision) -> Bounded:
    """(N, H, W, C) to (N, C), accumulated as `precision` says."""
    n = x.value.shape[1] * x.value.shape[2]
    total, squares = x.value.sum(axis=(1, 2)), (x.value**2).sum(axis=(1, 2))
    own = summing(n, total, squares, precision.accumulate) / n
    own = own + 2.0 * precision.store * np.abs(total) / n + precision.least
    passed = scaled(x.terms, lambda term: root((term**2).sum(axis=(1, 2))) / n)
    return Bounded(total / n, together(passed, {label: own}))


def product(a: Bounded, b: Bounded, label: str, precision: Precision) -> Bounded:
    """A matrix product (N, I) by (I, O), stored once."""
    squares = (a.value**2) @ (b.value**2)
    value = a.value @ b.value
    own = summing(a.value.shape[1], value, squares, precision.accumulate)
    own = own + entering(squares, precision.operand)
    own = own + precision.store * np.abs(value) + precision.least
    return Bounded(
        value,
        together(
            scaled(a.terms, lambda term: root(term**2 @ b.value**2)),
            scaled(b.terms, lambda term: root(a.value**2 @ term**2)),
            {label: own},
        ),
    )
