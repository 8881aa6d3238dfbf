"""The target `flax`: modules of Flax NNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated import carriers
from nfspec.conformance.subjects.generated.modules import Modules, Values
from nfspec.conformance.subjects.generated.optax import Network, Trained, by_name
from nfspec.generation.native import native
from nfspec.generation.view import CLASSES
from nfspec.plan import Plan, Pool


class FlaxSource(Modules, Trained):
    """Layers are made without values, which they get where they are evaluated."""

    framework = "jax"
    package = "flax"
    target = "flax"

    def _layer(self, kind: Any, channels: int, *sizes: int, **more: int) -> Any:
        from flax import nnx

        given = (channels, *sizes) if kind.__name__ == self.conv else sizes
        return nnx.eval_shape(lambda: kind(*given, **more, rngs=nnx.Rngs(0)))

    def _model(self, plan: Plan) -> Any:
        from flax import nnx

        made = getattr(self._file(plan), CLASSES[plan.family])
        model = nnx.eval_shape(lambda: made(rngs=nnx.Rngs(0)))
        model.eval()
        return model

    def _applied(self, layer: Any, values: Values, x: Any) -> Any:
        from flax import nnx

        definition, own, *rest = nnx.split(layer, nnx.Param, ...)
        return nnx.merge(definition, by_name(lambda name, _: values[name], own), *rest)(x)

    def _head_layers(self) -> tuple[Any, Any]:
        from flax import nnx

        return nnx.Linear, nnx.Dropout

    def pool(self, op: Pool) -> Function:
        made = self._file(carriers.with_pool(op))
        function: Function = made.average_pool if op.kind == "avg" else made.max_pool
        return function if op.stride > 1 else lambda x: function(x, op.stride)

    def _held(self, plan: Plan, params: Arrays) -> tuple[Any, Any, Network]:
        import jax
        from flax import nnx

        key = jax.random.key(0, impl="unsafe_rbg")  # whose bits take no time to compile
        model = native(plan, "flax", params=params, rngs=nnx.Rngs(key))
        definition, values, *rest = nnx.split(model, nnx.Param, ...)

        def network(values: Any, rest: Any, x: Any) -> tuple[Any, Any]:
            model = nnx.merge(definition, values, *rest, copy=True)  # its counts are of this trace
            logits = model(x)
            _, _, *after = nnx.split(model, nnx.Param, ...)
            return logits, after

        return values, rest, network

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        from flax import nnx

        made = self._file(plan)
        model = native(plan, "flax", params=params, rngs=nnx.Rngs(seed))

        @nnx.jit
        def evaluate(model: Any, x: Any) -> Any:
            with self._watched(made, plan) as taps:
                logits = model(x)
            return {**taps, "logits": logits}

        def training(x: Any) -> Arrays:
            return {name: np.asarray(value) for name, value in evaluate(model, x).items()}

        return {"training": training}
