"""The target `jax`: functions of a dict of arrays."""

from __future__ import annotations

from itertools import count
from typing import Any

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated.functions import Functions
from nfspec.conformance.subjects.generated.optax import Network, Trained, arrays
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

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        import jax

        _, values = native(plan, "jax", params=params)
        taps, names = self._tapped(plan)
        key, calls = jax.random.key(seed), count()

        @jax.jit  # type: ignore[untyped-decorator]
        def evaluate(x: Any, key: Any) -> Any:
            taps.clear()
            logits = names[self.network](values, x, key)
            pool = taps["features"].mean((1, 2))  # the classifier reads what dropout leaves of it
            return {**taps, "pool": pool, "logits": logits}

        def training(x: Any) -> Arrays:
            return arrays(evaluate(x, jax.random.fold_in(key, next(calls))))

        return {"training": training}
