"""AGC in a training loop of JAX: any tree of parameters, and what goes around it in optax."""

import importlib
import os
import sys

import numpy as np
import pytest

import nfspec

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

import jax
import optax

from nfspec.backends.jax import agc, function

import networks
from .doors import PLAN, SOME, door, some


def test_any_tree_of_parameters_can_be_named():
    gradients, params = some()
    whole, clipping = door(gradients, params), agc(PLAN, SOME)
    for tree in (list, tuple, lambda leaves: {"a": list(leaves)[:2], "b": list(leaves)[2:]}):
        held = tree(params.values())
        update = jax.jit(clipping.update)  # as `door` has it, whose bits are compared
        clipped_tree, state = update(tree(gradients.values()), clipping.init(held), held)
        assert jax.tree.structure(clipped_tree) == jax.tree.structure(held)
        for name, leaf in zip(SOME, jax.tree.leaves(clipped_tree), strict=True):
            np.testing.assert_array_equal(leaf, whole[name])
        assert {n: float(f) for n, f in state.clip_fraction.items()} == dict.fromkeys(SOME[:5], 1.0)


def test_a_dict_within_a_tree_needs_no_names():
    gradients, params = some()
    whole, clipping = door(gradients, params), agc(PLAN)
    held = {"params": params}
    clipped_tree, _ = jax.jit(clipping.update)({"params": gradients}, clipping.init(held), held)
    for name, clipped in whole.items():
        np.testing.assert_array_equal(clipped_tree["params"][name], clipped)


def test_gradients_are_clipped_once_accumulated():
    gradients, params = some()
    clipping = optax.MultiSteps(agc(PLAN), every_k_schedule=2)
    state = clipping.init(params)
    parts = {name: 3 * g for name, g in gradients.items()}, {n: -g for n, g in gradients.items()}
    for part in parts:
        updates, state = clipping.update(part, state, params)
    for name, clipped in door(gradients, params).items():  # (3 g - g) / 2 is g
        np.testing.assert_allclose(updates[name], clipped, rtol=1e-5)


def test_mistakes_in_optax():
    gradients, params = some()
    clipping = agc(PLAN)
    state = clipping.init(params)
    with pytest.raises(nfspec.InputError, match=r"needs the parameters: update\(gradients, state"):
        clipping.update(gradients, state)
    with pytest.raises(nfspec.InputError, match=r"not a dict.*nfspec.names_of\(model\)"):
        clipping.init(list(params.values()))
    with pytest.raises(nfspec.InputError, match="a name for each of 6 tensors; found 5"):
        agc(PLAN, SOME[:5]).init(list(params.values()))
    with pytest.raises(nfspec.InputError, match="differ in structure"):
        clipping.update({SOME[0]: gradients[SOME[0]]}, state, params)
    gradients["head.fc.bias"] = gradients["head.fc.bias"][:3]
    with pytest.raises(nfspec.InputError, match=r"head.fc.bias.*shape \(10,\); found \(3,\)"):
        clipping.update(gradients, state, params)


def test_a_missing_optax_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.delitem(sys.modules, "nfspec.backends.jax")
    with pytest.raises(nfspec.BackendError, match="pip install optax"):
        importlib.import_module("nfspec.backends.jax")


def test_names_beside_a_dict_of_parameters_are_refused():
    """JAX goes through a dict in the order of its keys, names are in another."""
    _, params = some()
    with pytest.raises(nfspec.InputError, match=r"are a dict .*leave the names out: agc\(plan\)"):
        agc(PLAN, sorted(params, reverse=True)).init(params)
    assert agc(PLAN, sorted(params)).init(params) == agc(PLAN).init(params)


DROPPING = {"stochastic_depth.rate": 0.5, "head.dropout": 0.5}


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    networks.network("plain", folder)
    plan = nfspec.resolve(nfspec.load(str(folder / "plain.toml"), DROPPING))
    params, _ = networks.drawn(plan)
    x = np.random.default_rng(0).standard_normal((2, 33, 46, plan.channels), np.float32)
    return plan, params, x


def test_a_network_as_a_function(dropping):
    plan, params, x = dropping
    apply = function(plan)
    exact = nfspec.reference.forward(plan, params, x)["logits"]
    found = jax.jit(apply)(params, x)
    # Rounding of float32 in some ten layers, as a share of the largest value.
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    each = jax.vmap(lambda image: apply(params, image[None])[0])(x)
    np.testing.assert_allclose(each, found, rtol=1e-4, atol=1e-5 * np.abs(exact).max())


def test_a_function_drops_by_its_key_alone(dropping):
    plan, params, x = dropping
    apply = jax.jit(function(plan))
    one, two = (apply(params, x, jax.random.key(n)) for n in (1, 2))
    np.testing.assert_array_equal(one, apply(params, x, jax.random.key(1)))
    assert np.abs(one - two).max() > 0 and np.abs(one - apply(params, x)).max() > 0


def test_gradients_of_a_function_are_those_of_the_reference(dropping):
    plan, params, x = dropping
    apply, weights = function(plan), np.random.default_rng(1).standard_normal((2, 3), np.float32)
    found = jax.jit(jax.grad(lambda p: (apply(p, x) * weights).sum()))(params)
    name = "stem.conv0.kernel"
    step = np.zeros_like(params[name])
    step.flat[4] = 1e-4
    sides = [
        (nfspec.reference.forward(plan, {**params, name: params[name] + s}, x)["logits"] * weights)
        for s in (step.astype(np.float64), -step.astype(np.float64))
    ]
    slope = (sides[0].sum() - sides[1].sum()) / 2e-4
    assert found.keys() == params.keys()
    np.testing.assert_allclose(np.asarray(found[name]).flat[4], slope, rtol=1e-3)


def test_what_a_function_does_not_take(dropping):
    plan, params, x = dropping
    apply = function(plan, top=False)
    del (headless := dict(params))["head.fc.kernel"]
    assert apply(headless, x).shape == (2, plan.tap_info["pool"].channels)
    with pytest.raises(nfspec.InputError, match=r"no stem\.conv0\.kernel in the parameters"):
        apply({n: v for n, v in params.items() if n != "stem.conv0.kernel"}, x)
