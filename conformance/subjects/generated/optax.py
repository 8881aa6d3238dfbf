"""Training of the targets of JAX, by optax as their users train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated import (
    Generated,
    carriers,
    decays,
    given,
    rate,
    recorded,
)
from nfspec.plan import Plan
from nfspec.reference.training import recipe_of

# A function of the parameters, what else a network holds, and images: logits, and what it then
# holds. A network holds a random key, or several.
Network = Callable[[Any, Any, Any], tuple[Any, Any]]


class Trained(Generated, ABC):
    """A subclass says what is trained: a tree of parameters whose paths are canonical names."""

    @abstractmethod
    def _held(self, plan: Plan, params: Arrays) -> tuple[Any, Any, Network]:
        """The parameters, what else the network holds, and the network in training."""

    def agc(self, clip: Clip) -> Function:
        clip_gradients = self._file(carriers.with_clipping(clip)).clip_gradients
        name = "op.kernel" if clip.role in ("kernel", "head") else f"op.{clip.role}"
        return lambda gradient, parameter: clip_gradients({name: gradient}, {name: parameter})[name]

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        return arrays(self._held(plan, given(params))[0])

    def _optimizer(self, plan: Plan, speed: Any) -> Any:
        """SGD of optax after the file's clipping; `speed` is the learning rate."""
        import optax

        recipe, decay = recipe_of(plan), decays(plan)
        clipping = optax.stateless(self._file(plan).clip_gradients)
        return optax.chain(
            clipping if plan.agc.enabled else optax.identity(),
            optax.add_decayed_weights(
                recipe.weight_decay, lambda tree: by_name(lambda name, _: decay[name] > 0, tree)
            ),
            optax.trace(recipe.momentum, nesterov=recipe.nesterov),
            optax.scale(-speed),
        )

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        import jax
        import optax

        values, rest, network = self._held(plan, params)
        targets = optax.smooth_labels(labels, recipe_of(plan).label_smoothing)

        def step(values: Any, rest: Any, state: Any, speed: Any) -> Any:
            def loss(values: Any) -> Any:
                logits, after = network(values, rest, x)
                return optax.softmax_cross_entropy(logits, targets).mean(), after

            (of_batch, after), slopes = jax.value_and_grad(loss, has_aux=True)(values)
            updates, state = self._optimizer(plan, speed).update(slopes, state, values)
            return of_batch, optax.apply_updates(values, updates), after, state

        state = self._optimizer(plan, 0.0).init(values)
        run = jax.jit(step)
        losses: list[Any] = []
        after: Arrays = {}
        for done in range(steps):
            of_batch, values, rest, state = run(values, rest, state, rate(plan, done))
            losses.append(of_batch)
            after |= recorded(done, steps, partial(arrays, values))
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

        values, *_ = self._held(plan, params)
        buffers = by_name(lambda name, _: momentum[name], values)
        slopes = by_name(lambda name, _: gradients[name], values)
        after, buffers = jax.jit(step)(values, buffers, slopes)
        return {
            **{f"parameter/{name}": value for name, value in arrays(after).items()},
            **{f"momentum/{name}": value for name, value in arrays(buffers).items()},
        }


def by_name(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """A tree of a function's results for each parameter's canonical name and value."""
    import jax

    def at(path: Any, value: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        return function(name, value)

    return jax.tree_util.tree_map_with_path(at, tree)


def arrays(tree: Any) -> Arrays:
    """The parameters of a tree by canonical name."""
    found: Arrays = {}
    by_name(lambda name, value: found.update({name: np.asarray(value)}), tree)
    return found
