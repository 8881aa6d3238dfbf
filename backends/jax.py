"""For training loops in JAX: a network as a pure function, and adaptive gradient clipping as a
transformation of optax.

    apply, params = function(plan), nfspec.init(plan)
    logits = apply(params, images, key=jax.random.key(0))
    optimizer = optax.chain(agc(plan), optax.sgd(0.1, momentum=0.9, nesterov=True))

With the variables of a model:

    names = nfspec.names_of(model)
    optimizer = optax.chain(agc(plan, names), optax.sgd(0.1, momentum=0.9, nesterov=True))
    state = optimizer.init([v.value for v in model.trainable_variables])

Source: Brock et al. 2021 (arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from nfspec.arguments import refuse
from nfspec.compilation import compile, names_of, select
from nfspec.errors import BackendError, InputError
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.clipping import ClipRule, TreatAs, require_agc, rules_for
from nfspec.wording import few

if TYPE_CHECKING:
    from nfspec.backends.kernels.jax_parts import Parts

try:
    import optax
except ModuleNotFoundError as error:
    raise BackendError("jax: optax not installed; run: pip install optax") from error


DEVICES = "; jax.devices() has all, and jax.devices()[:4] the first four of them"


class AGCState(NamedTuple):
    """The state of `agc`.

    Attributes:
        clip_fraction: Canonical name of each parameter that AGC may clip to the fraction of the
            parameter's units that the last step clipped, float32.
    """

    clip_fraction: dict[str, jax.Array]


def function(spec: Spec | Plan, **how: Any) -> Callable[..., Any]:
    """A network as a pure function of its parameters and of images.

    It can be transformed: `jax.jit`, `jax.grad`, `jax.vmap`, `jax.checkpoint`.

    Args:
        spec: What `nfspec.load` or `nfspec.resolve` returned.
        how: Arguments of `nfspec.compile`, such as `dtype="mixed_bfloat16"` and `top=False`.

    Returns:
        `apply(params, images, key=None)`: `params` is a dict of canonical name to array, as
        `nfspec.init(plan)` is; images are (N, H, W, C), float. With a key of `jax.random` it drops
        at random, as in training. It returns what the compiled model returns.

    Raises:
        BackendError: Keras runs on another framework.
        InputError: An argument has a wrong type or value; from `apply`: parameters are missing.
    """
    model = compile(spec, "jax", **how)
    names = names_of(model)
    drops = model.non_trainable_variables  # the states of random generators

    def apply(params: Mapping[str, Any], images: Any, key: Any = None) -> Any:
        if absent := [name for name in names if name not in params]:
            raise InputError(f"apply: no {few(absent, 3)} in the parameters")
        states = [variable.value for variable in drops]
        if key is not None:
            keys = jax.random.split(key, max(len(states), 1))
            bits = jax.vmap(lambda each: jax.random.bits(each, (2,), "uint32"))(keys)
            states = [bits[n].astype(state.dtype) for n, state in enumerate(states)]
        trained = [params[name] for name in names]
        return model.stateless_call(trained, states, images, training=key is not None)[0]

    return apply


def parts(devices: Sequence[jax.Device] | None = None) -> Parts:
    """A way to have kernels, and what an optimizer keeps of them, in parts over devices.

    It is a distribution of Keras's, for `keras.distribution.set_distribution`, and `in_parts` and
    `images` are shardings of JAX. Within its `scope()` networks of nfspec are traced so that a
    device has its own images, gathers each kernel where it computes with it, and keeps its part of
    the gradient's sum over devices. Numbers are as with whole kernels, within roundings.

    Args:
        devices: Some of `jax.devices()`, each once. If None, all that there are.

    Raises:
        BackendError: Keras runs on another framework, or JAX is too old.
        InputError: The devices are none, or one is there twice.
    """
    select("jax")
    from nfspec.backends.kernels.jax_parts import Parts

    found = jax.devices() if devices is None else devices
    listed = isinstance(found, Sequence) and all(isinstance(d, jax.Device) for d in found)
    if not listed or not found or len({*found}) < len(found):
        raise refuse("devices", "a list of devices of JAX, each once", found, DEVICES)
    return Parts(found)


def _names(plan: Plan, tree: Any) -> list[str]:
    """The name of each leaf, in flatten order: the canonical name, or for a leaf of another layer
    its keys and numbers with slashes between. It is empty in a tree of lists alone."""
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]:
        keys = [getattr(part, "key", getattr(part, "name", None)) for part in path]
        if all(key is None for key in keys):  # in lists alone
            names.append("")
        elif keys[-1] in plan.parameters:
            names.append(str(keys[-1]))
        else:
            parts = zip(path, keys, strict=True)
            names.append("/".join(str(part.idx if key is None else key) for part, key in parts))
    return names


def _rules(
    plan: Plan, names: Sequence[str] | None, tree: Any, treat_as: TreatAs | None
) -> dict[str, ClipRule]:
    """Name to rule, for each leaf in flatten order."""
    keys = _names(plan, tree)
    known = keys if names is None else list(names)
    if known != keys and any(key in plan.parameters for key in keys):
        raise InputError(
            "agc: the parameters are a dict by canonical name, which JAX sorts; leave the names "
            "out: agc(plan)"
        )
    if "" in known:
        raise InputError(
            "agc: these parameters are not a dict by canonical name; give their names, in the "
            "order of jax.tree.leaves: agc(plan, nfspec.names_of(model))"
        )
    rules = rules_for(plan, known, [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)], treat_as)
    return dict(zip(known, rules, strict=True))


def _require_shapes(names: Iterable[str], gradients: list[Any], parameters: list[Any]) -> None:
    for name, gradient, parameter in zip(names, gradients, parameters, strict=True):
        if jnp.shape(gradient) != jnp.shape(parameter):
            raise InputError(
                f"{name}: expected a gradient of shape {jnp.shape(parameter)}; found "
                f"{jnp.shape(gradient)}"
            )


def agc(
    plan: Plan,
    names: Sequence[str] | None = None,
    *,
    treat_as: TreatAs | None = None,
    plain: bool = False,
) -> optax.GradientTransformation:
    """Clip gradients by the norms of their parameters' units, as the plan's `[agc]` says.

    It comes first in a chain: before weight decay and momentum, and inside what accumulates
    gradients (`optax.MultiSteps`). Gradients are those of the whole batch, not scaled for float16.

    Args:
        plan: The network.
        names: Canonical name of each leaf, in the order of `jax.tree.leaves`. Not needed where
            parameters are dicts, nested or not, whose innermost keys are canonical names. Not all
            of the plan's need be there.
        treat_as: For leaves of other layers, their keys with slashes between to the name of the
            plan's parameter that each is clipped like, or to None: `{"decoder/*": None}`. See
            `nfspec.agc`. The last axis of a kernel is its outputs, as in Flax and Haiku.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.

    Returns:
        A transformation whose update needs the parameters, in the canonical layout. It can be
        jitted; its state is an `AGCState`.

    Raises:
        InputError: The plan does not clip; from init and update: a leaf is not the plan's.
        BackendError: Keras runs on another framework.
    """
    select("jax")
    from nfspec.backends.clipping import clip_all

    require_agc(plan)

    def fractions(rules: dict[str, ClipRule], values: Sequence[Any]) -> AGCState:
        pairs = zip(rules.items(), values, strict=True)
        return AGCState({name: f for (name, rule), f in pairs if rule.clipping is not None})

    def init(params: Any) -> AGCState:
        rules = _rules(plan, names, params, treat_as)
        return fractions(rules, [jnp.zeros(())] * len(rules))

    def update(updates: Any, state: AGCState, params: Any = None) -> tuple[Any, AGCState]:
        if params is None:
            raise InputError("agc needs the parameters: update(gradients, state, params)")
        leaves, structure = jax.tree.flatten(updates)
        if structure != jax.tree.structure(params):
            raise InputError(
                f"agc: gradients and parameters differ in structure: {structure} and "
                f"{jax.tree.structure(params)}"
            )
        rules = _rules(plan, names, params, treat_as)
        parameters = jax.tree.leaves(params)
        _require_shapes(rules, leaves, parameters)
        clipped, shares = clip_all(leaves, parameters, rules.values(), plain)
        return jax.tree.unflatten(structure, clipped), fractions(rules, shares)

    return optax.GradientTransformation(init, update)
