"""AGC in the training loops of each framework: optax, torch.optim, tf.GradientTape."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec.plan.clipping import clip_rules

from .doors import GOLDEN, PLAN, SOME, door, some
from .gradients import golden_model, gradient_function, smoothed
from golden import relative

RECIPE = PLAN.recipe
DECAYED = [p.name for p in PLAN.parameters.values() if p.role in ("kernel", "head")]


def test_the_first_step_is_the_originals(backend):
    """SGD with Nesterov's momentum and decay of kernels and head, after clipping.

    A parameter moves by lr · 1.9 · its clipped gradient, at most 1e-3 of its norm where clipped;
    gradients are within 1e-4 of the original's, so that steps are within 1e-7 and the stored
    parameters within float32's 6e-8 of that; the unclipped head moves by 7 % of its norm, 7e-7.
    """
    steps = {"jax": jax_step, "torch": torch_step, "tensorflow": tensorflow_step}
    model = golden_model("nfnet_tiny")
    *_, gradients = gradient_function(model)(GOLDEN["x"], smoothed("nfnet_tiny"))
    params = steps[backend](model, gradients)
    exact = GOLDEN.named("agc/step1")
    assert set(params) == set(exact)
    distance = {name: relative(params[name], exact[name]) for name in exact}
    assert not {name: d for name, d in distance.items() if not d <= 1e-6}


def jax_step(model, gradients):
    import jax
    import optax

    from nfspec.backends.jax import agc

    names = nfspec.names_of(model)
    optimizer = optax.chain(
        agc(PLAN, names),
        optax.add_decayed_weights(RECIPE.weight_decay, [name in DECAYED for name in names]),
        optax.trace(RECIPE.momentum, nesterov=RECIPE.nesterov),
        optax.scale(-RECIPE.learning_rate),
    )

    @jax.jit
    def step(values, gradients):
        updates, state = optimizer.update(gradients, optimizer.init(values), values)
        return optax.apply_updates(values, updates), state

    values, (state, *_) = step([v.value for v in model.trainable_variables], gradients)
    assert_fractions(state.clip_fraction)
    return dict(zip(names, values, strict=True))


def torch_step(model, gradients):
    import torch

    from nfspec.backends.torch import agc

    held = {variable.canonical: variable.value for variable in model.trainable_variables}
    decayed = [held[name] for name in DECAYED]
    rest = [parameter for name, parameter in held.items() if name not in DECAYED]
    optimizer = torch.optim.SGD(
        [{"params": rest}, {"params": decayed, "weight_decay": RECIPE.weight_decay}],
        lr=RECIPE.learning_rate,
        momentum=RECIPE.momentum,
        nesterov=RECIPE.nesterov,
    )
    clipping = agc(PLAN, optimizer, model)
    for parameter, gradient in zip(held.values(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    assert_fractions(clipping.clip_fraction)
    return {name: parameter.detach() for name, parameter in held.items()}


def tensorflow_step(model, gradients):
    import tensorflow as tf

    from nfspec.backends.tensorflow import agc

    held = model.trainable_variables

    @tf.function
    def step(gradients):
        for variable, gradient in zip(held, agc(PLAN, gradients, held), strict=True):
            if variable.canonical in DECAYED:
                gradient += RECIPE.weight_decay * variable
            # The buffer starts at zero: it is the gradient, and Nesterov's step adds it.
            variable.assign_sub(RECIPE.learning_rate * (1 + RECIPE.momentum) * gradient)

    step(gradients)
    return {variable.canonical: variable.numpy() for variable in held}


def assert_fractions(fractions):
    rules = clip_rules(PLAN)
    assert set(fractions) == set(rules) - {"head.fc.kernel"}
    clipped = sum(float(fraction) * rules[name].units for name, fraction in fractions.items())
    # The figure counts the head's kernel, all of whose 10 units are beyond the bound.
    units = sum(rule.units for rule in rules.values())
    assert clipped + 10 == pytest.approx(GOLDEN.meta["clip_fraction_step1"] * units, abs=1e-3)


def unit_norms(x, rule):
    return np.sqrt((np.float64(x) ** 2).sum(axis=rule.axes))


def test_only_the_heads_kernel_is_left_out_and_all_else_is_clipped():
    """The head's bias, gains, skip gains and SE kernels too (experiment_nfnets.py)."""
    gradients, params = some()
    clipped = door(gradients, params)
    rules = clip_rules(PLAN)
    np.testing.assert_array_equal(clipped["head.fc.kernel"], gradients["head.fc.kernel"])
    for name in set(SOME) - {"head.fc.kernel"}:
        limit = 0.01 * np.maximum(unit_norms(params[name], rules[name]), 1e-3)
        np.testing.assert_allclose(unit_norms(clipped[name], rules[name]), limit, rtol=1e-5)


def test_parameters_are_known_by_name_and_not_by_position():
    """Neither another order nor another set of parameters changes what becomes of one."""
    gradients, params = some()
    whole = door(gradients, params)
    turned = door(dict(reversed(gradients.items())), dict(reversed(params.items())))
    part = {name: params[name] for name in SOME[:2]}
    alone = door({name: gradients[name] for name in part}, part)
    for name in SOME:
        np.testing.assert_array_equal(turned[name], whole[name])
    for name in part:
        np.testing.assert_array_equal(alone[name], whole[name])


def test_the_doors_follow_the_plan():
    """Its unit rule, lambda by role and by name, and what it leaves out."""
    changes = {
        "unit": "timm",
        "exclude": ("stem.*.kernel",),
        "roles": {"skip_gain": 0.5},
        "names": {"head.*": 0.25},
    }
    plan = replace(PLAN, agc=PLAN.agc.model_copy(update=changes))
    gradients, params = some()
    clipped = door(gradients, params, plan)
    np.testing.assert_array_equal(clipped["stem.conv0.kernel"], gradients["stem.conv0.kernel"])
    for name, clipping in zip(SOME[1:], [0.01, 0.01, 0.5, 0.25, 0.25], strict=True):
        p, g = np.float64(params[name]), np.float64(gradients[name])
        axis = () if name == "stem.conv0.gain" else 0 if p.ndim else None
        expected = g * clipping * np.sqrt((p**2).sum(axis) / (g**2).sum(axis))
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-5)


def test_skip_gains_and_biases_of_zero_are_not_frozen():
    gradients, params = some()
    clipped = door(gradients, {name: np.zeros_like(p) for name, p in params.items()})
    for name in ("stages.0.blocks.0.skip_gain", "head.fc.bias"):
        assert np.linalg.norm(clipped[name]) == pytest.approx(1e-5, rel=1e-5)


def test_a_plan_that_trains_without_clipping_is_refused():
    gradients, params = some()
    plan = replace(PLAN, agc=PLAN.agc.model_copy(update={"enabled": False}))
    with pytest.raises(nfspec.InputError, match=r"nfnet-tiny trains without.*enabled = true"):
        door(gradients, params, plan)


def test_tensors_that_are_not_the_plans_are_refused():
    gradients, params = some()
    gradients["stem.conv0.kernel"] = gradients["stem.conv0.kernel"].transpose(3, 2, 0, 1)
    params["stem.conv0.kernel"] = params["stem.conv0.kernel"].transpose(3, 2, 0, 1)
    shapes = r"stem.conv0.kernel: expected shape \(3, 3, 3, 16\).*found \(16, 3, 3, 3\)"
    with pytest.raises(nfspec.InputError, match=shapes):
        door(gradients, params)
    one = {"stem.conv0.gian": np.ones(16, np.float32)}
    with pytest.raises(nfspec.InputError, match=r'stem.conv0.gian.*mean "stem.conv0.gain"'):
        door(one, one)


def test_a_door_of_another_framework_is_refused(backend):
    other = "jax" if backend == "torch" else "torch"
    agc = importlib.import_module(f"nfspec.backends.{other}").agc
    with pytest.raises(nfspec.BackendError, match=f"Keras already runs on {backend}"):
        agc(PLAN) if other == "jax" else agc(PLAN, None, {})
