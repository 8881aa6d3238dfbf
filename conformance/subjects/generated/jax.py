"""The target `jax`, trained by optax as its users train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.generated import carriers, decays, rate
from nfspec.conformance.subjects.generated.functions import Functions
from nfspec.generation.native import native
from nfspec.plan import Dropout, Plan, StochasticDepth
from nfspec.reference.training import recipe_of


class JaxSource(Functions):
    framework = "jax"
    target = "jax"
    network = "apply"
    average = "average_pool"

    def agc(self, clip: Clip) -> Function:
        clip_gradients = self._file(carriers.with_clipping(clip)).clip_gradients
        name = "op.kernel" if clip.role in ("kernel", "head") else f"op.{clip.role}"
        return lambda gradient, parameter: clip_gradients({name: gradient}, {name: parameter})[name]

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        if params is None:
            raise NotOffered("a file draws its weights by its framework, not by nfspec's seed")
        _, held = native(plan, "jax", params=params)
        return _arrays(held)

    def _optimizer(self, plan: Plan, speed: Any) -> Any:
        """SGD of optax after the file's clipping; `speed` is the learning rate."""
        import optax

        recipe = recipe_of(plan)
        clipping = optax.stateless(self._file(plan).clip_gradients)
        decayed = {name: decay > 0 for name, decay in decays(plan).items()}
        return optax.chain(
            clipping if plan.agc.enabled else optax.identity(),
            optax.add_decayed_weights(recipe.weight_decay, decayed),
            optax.trace(recipe.momentum, nesterov=recipe.nesterov),
            optax.scale(-speed),
        )

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        import jax
        import optax

        file, values = native(plan, "jax", params=params)
        targets = optax.smooth_labels(labels, recipe_of(plan).label_smoothing)
        random = any(isinstance(op, StochasticDepth | Dropout) for op in plan.ops)

        def step(values: Any, state: Any, key: Any, speed: Any) -> Any:
            def loss(values: Any) -> Any:
                logits = file.apply(values, x, **({"key": key} if random else {}))
                return optax.softmax_cross_entropy(logits, targets).mean()

            of_batch, slopes = jax.value_and_grad(loss)(values)
            updates, state = self._optimizer(plan, speed).update(slopes, state, values)
            return of_batch, optax.apply_updates(values, updates), state

        state = self._optimizer(plan, 0.0).init(values)
        run = jax.jit(step)
        losses: list[Any] = []
        after: dict[str, Any] = {}
        for done in range(steps):
            of_batch, values, state = run(values, state, jax.random.key(done), rate(plan, done))
            losses.append(of_batch)
            if done in (0, steps - 1):
                prefix = "first" if done == 0 else "last"
                after |= {f"{prefix}/{name}": value for name, value in _arrays(values).items()}
        return {"losses": np.asarray(losses, np.float32), **after}

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> Arrays:
        import jax
        import optax

        def step(values: Any, buffers: Any, slopes: Any) -> Any:
            optimizer = self._optimizer(plan, rate(plan, done))
            state = optax.tree_utils.tree_set(optimizer.init(values), trace=buffers)
            updates, state = optimizer.update(slopes, state, values)
            trace = optax.tree_utils.tree_get(state, "trace")
            return optax.apply_updates(values, updates), trace

        _, values = native(plan, "jax", params=params)
        after, buffers = jax.jit(step)(values, dict(momentum), dict(gradients))
        return {
            **{f"parameter/{name}": value for name, value in _arrays(after).items()},
            **{f"momentum/{name}": value for name, value in _arrays(buffers).items()},
        }


def _arrays(values: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in values.items()}
