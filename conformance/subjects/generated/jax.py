"""The target `jax`: functions of a dict of arrays."""

from __future__ import annotations

from typing import Any

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects.generated.functions import Functions
from nfspec.conformance.subjects.generated.optax import Network, Trained
from nfspec.generation.native import native
from nfspec.plan import Dropout, Plan, StochasticDepth


class JaxSource(Functions, Trained):
    framework = "jax"
    target = "jax"
    network = "apply"
    average = "average_pool"

    def _held(self, plan: Plan, params: Arrays) -> tuple[Any, Any, Network]:
        import jax

        file, values = native(plan, "jax", params=params)
        random = any(isinstance(op, StochasticDepth | Dropout) for op in plan.ops)

        def network(values: Any, key: Any, x: Any) -> tuple[Any, Any]:
            own, after = jax.random.split(key)
            return file.apply(values, x, **({"key": own} if random else {})), after

        return values, jax.random.key(0), network
