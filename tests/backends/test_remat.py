"""Blocks and stages that are computed again in the backward pass: the same values and gradients."""

import copy

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.running import forward_function
from nfspec.conformance.cases.weights import trial_params
from nfspec.errors import InputError

import networks
from .small import DROPS, batches, small_params, small_spec

BACKEND = keras.backend.backend()


def gradients(model, x, labels, training=True):
    """The loss, and the gradient of each parameter by its name, after a pass that drops."""
    names = nfspec.names_of(model)
    if BACKEND == "jax":
        import jax

        rest = [v.value for v in model.non_trainable_variables]

        def loss(values):
            y, _ = model.stateless_call(values, rest, x, training=training)
            return ((y - labels) ** 2).mean()

        given = [v.value for v in model.trainable_variables]
        value, found = jax.jit(jax.value_and_grad(loss))(given)
        return float(value), dict(zip(names, map(np.asarray, found), strict=True))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                value = tf.reduce_mean((model(x, training=training) - labels) ** 2)
            return value, tape.gradient(value, model.trainable_variables)

        value, found = step()
        return float(value), {n: g.numpy() for n, g in zip(names, found, strict=True)}
    import torch

    y = model(torch.from_numpy(x), training=training)
    value = ((y - torch.from_numpy(labels)) ** 2).mean()
    value.backward()
    return value.item(), {n: p.grad.numpy() for n, p in model.named_parameters()}


def small(folder):
    return small_spec(DROPS), small_params(), batches(1)[0], batches(1)[1]


def with_attention(folder):
    """Two kinds of attention, whose gates are what is dropped."""
    networks.network("two-attentions", folder)
    spec = nfspec.load(str(folder / "two-attentions.toml"), {"stochastic_depth.rate": 0.5})
    params, _ = networks.drawn(nfspec.resolve(spec))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 33, 46, spec.input.channels), np.float32)
    return spec, params, x, rng.standard_normal((3, spec.head.classes), np.float32)


@pytest.mark.parametrize("made", [small, with_attention])
@pytest.mark.parametrize("remat", ["block", "stage"])
def test_values_and_gradients_are_the_same(remat, made, tmp_path):
    spec, params, x, labels = made(tmp_path)
    found = []
    for how in ("none", remat):
        keras.utils.set_random_seed(1)
        model = nfspec.compile(spec, BACKEND, params, remat=how)
        found.append(gradients(model, x, np.asarray(labels, np.float32)))
    (loss, right), (again, same) = found
    assert again == pytest.approx(loss, rel=1e-6)
    assert right.keys() == same.keys()
    for name, value in right.items():
        # Compilers may add up in another order within float32.
        np.testing.assert_allclose(same[name], value, rtol=1e-4, atol=1e-6 * abs(value).max())
    regions = [region for region in model.regions if region.again]
    parts = len(spec.stages.depth) if remat == "stage" else sum(spec.stages.depth)
    assert len(regions) == 1 + parts and all(len(region.inputs) == 1 for region in regions)


def test_what_is_dropped_differs_from_pass_to_pass():
    x = batches(1)[0]
    model = nfspec.compile(small_spec(DROPS), BACKEND, small_params(), remat="block")
    run = forward_function(model, training=True)
    assert (run(x) != run(x)).any()
    still = forward_function(model)
    np.testing.assert_array_equal(still(x), still(x))


def test_copies_compute_again_and_fit_works():
    x, labels, _ = batches(1)
    model = copy.deepcopy(nfspec.compile(small_spec(), BACKEND, small_params(), remat="block"))
    assert any(region.again for region in model.regions)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = nfspec.params_of(model)
    model.fit(x, np.asarray(labels, np.float32), verbose=0)
    after = nfspec.params_of(model)
    assert any((before[name] != after[name]).any() for name in before)


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch, where calls can be counted")
def test_steps_of_nfspecs_loop_compute_again(monkeypatch):
    """`train_on_batch` hands a network arrays, and not tensors."""
    counts = {}
    for remat in ("none", "block"):
        x, labels, _ = batches(1)
        model = nfspec.compile(small_spec(), BACKEND, small_params(), remat=remat)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.train_on_batch(x, labels)  # Keras looks at shapes before the first step
        calls = []
        layer = next(layer for layer in model.layers if "stages" in getattr(layer, "canonical", ""))
        monkeypatch.setattr(
            layer, "call", lambda x, call=layer.call, calls=calls: calls.append(0) or call(x)
        )
        model.train_on_batch(x, labels)
        counts[remat] = len(calls)
    assert counts == {"none": 1, "block": 2}


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch, where saved tensors can be counted")
def test_less_is_kept_for_the_backward_pass():
    import torch

    kept = {}
    for remat in ("none", "block"):
        model = nfspec.compile(small_spec(), "torch", remat=remat)
        parameters = {p.data_ptr() for p in model.parameters()}
        held = {}

        def pack(tensor, held=held, parameters=parameters):
            if tensor.data_ptr() not in parameters:
                held[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(8, 32, 32, 3)).sum()
        kept[remat] = sum(held.values())
    assert kept["block"] < 0.5 * kept["none"]


def test_what_is_not_offered():
    with pytest.raises(InputError, match="remat: expected one of"):
        nfspec.compile(small_spec(), BACKEND, remat="layer")


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch, whose loops have a generator of theirs")
def test_a_loop_of_ones_own_is_seeded_by_pytorch_and_keras_is_not():
    """Dropout in the head, which is in no region that is computed again."""
    import torch

    rates = {"stochastic_depth.rate": 0.0, "head.dropout": 0.5}
    spec = nfspec.load("nfnet-nano", {"stages.depth": [1] * 4, **rates})
    model = nfspec.compile(spec, "torch", trial_params(nfspec.resolve(spec), 0), remat="block")
    x = torch.randn(4, 32, 32, 3)

    def drawn(seed, **how):
        keras.utils.set_random_seed(1)
        for layer in model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([1, 2])
        torch.manual_seed(seed)
        return model(x, **how).detach()

    model.train()
    assert (drawn(1) == drawn(1)).all() and (drawn(1) != drawn(2)).any()
    assert (drawn(1, training=True) == drawn(2, training=True)).all()
