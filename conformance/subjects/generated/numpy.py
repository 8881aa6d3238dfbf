"""The target `numpy`. NumPy has no gradients, so that nothing trains."""

from __future__ import annotations

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.subjects.generated.functions import Functions
from nfspec.generation.native import native
from nfspec.plan import Plan


class NumpySource(Functions):
    framework = "numpy"
    target = "numpy"
    network = "forward"
    average = "pool"
    image_at = 1

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        if params is None:
            raise NotOffered("a file in NumPy draws no weights")
        (held,) = native(plan, "numpy", params=params).args
        return held
