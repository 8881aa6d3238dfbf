"""The plain port on JAX: lax's grouped convs, WS in the graph, optax's AGC and SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfspec import compilation
from nfspec.benchmarks import inputs
from nfspec.benchmarks.works import RATE, Setup, Work
from nfspec.plan.resolver import resolve


def step(setup: Setup) -> Work:
    """One jitted function of parameters, state and images; the first two are donated to it.

    Dropout and stochastic depth as the variant has them.
    """
    spec = inputs.spec_of(setup)
    plan = resolve(spec)
    policy = "mixed_bfloat16" if setup.narrow else None
    model = compilation.compile(spec, "jax", inputs.params_of(plan), plain=True, dtype=policy)
    x = jnp.asarray(inputs.images(setup))
    y = jnp.asarray(inputs.labels(setup, inputs.classes_of(plan)))
    optimizer, update = updating(model)
    params = [jnp.array(v.value) for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    held = [params, rest, optimizer.init(params)]
    jitted = jax.jit(update, donate_argnums=(0, 2))

    def run() -> None:
        *held[:], value = jitted(*held, x, y)
        jax.block_until_ready((held, value))

    return run


def updating(model: Any) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimizer and the step: a function of parameters, other states, the optimizer's state,
    images and labels, which returns the first three anew, and the loss."""
    optimizer = optax.chain(
        optax.adaptive_grad_clip(0.01), optax.sgd(RATE, momentum=0.9, nesterov=True)
    )

    def loss(params: Any, rest: Any, x: Any, y: Any) -> Any:
        logits, rest = model.stateless_call(params, rest, x, training=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), rest

    def update(params: Any, rest: Any, state: Any, x: Any, y: Any) -> Any:
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params, rest, x, y)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), rest, state, value

    return optimizer, update


def _clipping(setup: Setup, transformation: Any) -> Work:
    """Jitted; the gradients are kept, since the next run needs them."""
    plan = inputs.plan_of(setup)
    params = {name: jnp.asarray(v) for name, v in inputs.params_of(plan).items()}
    given = {name: jnp.asarray(v) for name, v in inputs.gradients(plan).items()}
    state = transformation.init(params)
    jitted = jax.jit(transformation.update)
    return lambda: jax.block_until_ready(jitted(given, state, params)[0])


def agc(setup: Setup) -> Work:
    return _clipping(setup, optax.adaptive_grad_clip(0.01))


def ours(setup: Setup) -> Work:
    """`nfspec.backends.jax.agc`, which clips every tensor here, as optax's does."""
    from nfspec.backends.jax import agc

    return _clipping(setup, agc(inputs.clipped_whole(inputs.plan_of(setup))))


MAKERS = {"step": step, "agc": agc, "ours": ours}
