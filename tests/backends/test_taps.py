"""The features of compiled networks, and gradients by taps, as Grad-CAM takes them."""

from dataclasses import replace
from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

import nfspec
from nfspec.backends.compiler import assemble
from nfspec.conformance.cases.weights import trial_params
from nfspec.reference.derivatives import vjp
from nfspec.reference.network import evaluate
from nfspec.reference.rounding import Rounding

from .small import SPEC, batches, outputs, slow_on_jax, small_spec, some_compiled

BACKEND = keras.backend.backend()
SPECS = {
    "final conv": SPEC,
    "no final conv": SPEC.replace("[head]", '[head]\nconv = "none"'),
}
WAYS = {"fast": {}, "plain": {"plain": True}, "folded": {"folded": True}}
EVEN, ODD = (16, 16), (17, 13)
SAMPLES, SIGMAS = 3, 4.0


def images(sides):
    """As many and as large as other tests have them, since JAX compiles for each shape; or odd."""
    x = batches(1)[0]
    return x if sides == EVEN else np.ascontiguousarray(np.resize(x, (2, *sides, 3)))


def bounds(plan, params, x, exact):
    """Four times the distance to which rounding every operation takes the reference itself."""
    squares = dict.fromkeys(exact, 0.0)
    for seed in range(SAMPLES):
        rounded = nfspec.reference.forward(plan, params, x, rounding=Rounding(seed))
        for tap, y in exact.items():
            squares[tap] += np.linalg.norm(rounded[tap] - y) ** 2
    return {tap: SIGMAS * (square / SAMPLES) ** 0.5 for tap, square in squares.items()}


FEATURES = list(product(SPECS, WAYS, ("channels_last", "channels_first")))
# Where the final activation is, and which axis is the channels', do not depend on each other.
KEPT = [case for case in FEATURES if case[0] == "final conv" or case[2] == "channels_last"]


@pytest.mark.parametrize(("name", "way", "data_format"), some_compiled(FEATURES, KEPT))
def test_features_are_those_of_the_network_as_written(name, way, data_format):
    spec = small_spec(SPECS[name])
    plan = nfspec.resolve(spec)
    params = trial_params(plan, 0)
    how = {"data_format": data_format, **WAYS[way]}
    model = nfspec.compile(spec, BACKEND, params, taps=True, **how)
    assert set(model.output) == set(plan.taps)
    alone = nfspec.compile(spec, BACKEND, params, **how)
    first = data_format == "channels_first"
    for sides in (ODD,) if first else (EVEN, ODD):
        x = images(sides)
        exact = nfspec.reference.forward(plan, params, x)
        allowed = bounds(plan, params, x, exact)
        given = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
        for tap, output in outputs(model, given).items():
            output = output.transpose(0, 2, 3, 1) if first and output.ndim == 4 else output
            assert np.linalg.norm(output - exact[tap]) <= allowed[tap], (tap, sides)
            info = plan.tap_info[tap]
            image = () if info.stride is None else tuple(-(-n // info.stride) for n in sides)
            assert output.shape == (len(x), *image, info.channels)
        logits = outputs(alone, given)
        assert np.linalg.norm(logits - exact["logits"]) <= allowed["logits"]


def test_networks_without_taps_have_no_operation_for_features():
    names = {way: {layer.name for layer in compiled(**how).layers} for way, how in WAYS.items()}
    assert not any("features" in layers for layers in names.values())
    assert "final_act" in names["fast"] and "final_act" not in names["folded"]


@slow_on_jax
def test_plain_networks_have_the_output_of_every_operation():
    """docs/models.md recommends such networks to readers who want the outputs of single layers."""
    plan, x = nfspec.resolve(small_spec()), images(ODD)
    params, model = trial_params(plan, 0), compiled(plain=True)
    every = {op.name: op.name for op in plan.ops}
    exact = nfspec.reference.forward(plan, params, x, taps=every)
    allowed = bounds(replace(plan, taps=every), params, x, exact)
    layers = {name: model.get_layer(name.replace(".", "_")).output for name in every}
    for name, y in keras.Model(model.input, layers)(ops.convert_to_tensor(x)).items():
        assert np.linalg.norm(ops.convert_to_numpy(y) - exact[name]) <= allowed[name], name


def compiled(**how):
    spec = small_spec()
    return nfspec.compile(spec, BACKEND, trial_params(nfspec.resolve(spec), 0), **how)


def exact_gradient(plan, params, x, tap, k):
    """The reference's tap, and derivative of the sum of the images' logits k by it."""
    values, own = {"input": x.astype(np.float64)}, {}
    for op in plan.ops:
        own[op.name] = [np.asarray(params[q.name], np.float64) for q in op.parameters]
        values[op.name] = evaluate(op, [values[name] for name in op.inputs], own[op.name])
    logits = np.zeros_like(values[plan.taps["logits"]])
    logits[:, k] = 1.0
    slopes = {plan.taps["logits"]: logits}
    for op in reversed(plan.ops):
        if op.name == plan.taps[tap]:
            return values[op.name], slopes[op.name]
        of_inputs, _ = vjp(op, slopes[op.name], [values[name] for name in op.inputs], own[op.name])
        for name, slope in zip(op.inputs, of_inputs, strict=True):
            slopes[name] = slopes.get(name, 0.0) + slope
    raise AssertionError(tap)


def gradient(model, x, tap, k):
    """A tap, and the derivative of the sum of the images' logits k by it, as the page has it."""
    if BACKEND == "torch":
        import torch

        tapped = model(x)
        (slope,) = torch.autograd.grad(tapped["logits"][:, k].sum(), tapped[tap])
        return tapped[tap].detach(), slope
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            tapped = model(x)
            score = tf.reduce_sum(tapped["logits"][:, k])
        return tapped[tap], tape.gradient(score, tapped[tap])
    import jax

    head = keras.Model(model.output[tap], model.output["logits"])
    y = ops.convert_to_tensor(outputs(model, x)[tap])
    return y, jax.jit(jax.grad(lambda y: head(y)[:, k].sum()))(y)


GRADIENTS = list(product(("features", "stages.0.blocks.0"), WAYS))
# Behind a block comes all that comes behind the features.
BEHIND = [case for case in GRADIENTS if case[0] != "features" or case[1] == "fast"]


@pytest.mark.parametrize(("tap", "way"), some_compiled(GRADIENTS, BEHIND))
def test_gradients_by_a_tap_are_the_references(tap, way):
    model = compiled(taps=True, **WAYS[way])
    plan, k = nfspec.resolve(small_spec()), 3
    x = images(ODD)
    y, slope = exact_gradient(plan, trial_params(plan, 0), x, tap, k)
    results = map(ops.convert_to_numpy, gradient(model, ops.convert_to_tensor(x), tap, k))
    # Sums of up to 96 terms, and half a dozen roundings one after another: 16 · √96 of them.
    near = 16 * 96**0.5 * 2.0**-24
    for a, b in zip(results, (y, slope), strict=True):
        assert np.linalg.norm(b) > 0.0
        assert np.linalg.norm(a - b) <= near * np.linalg.norm(b)


def test_grad_cam_is_the_references():
    model = compiled(taps=True)
    plan = nfspec.resolve(small_spec())
    x = images(ODD)
    maps = []
    for y, slope in (
        exact_gradient(plan, trial_params(plan, 0), x, "stages.0.blocks.0", 3),
        map(
            ops.convert_to_numpy, gradient(model, ops.convert_to_tensor(x), "stages.0.blocks.0", 3)
        ),
    ):
        maps.append(np.maximum((slope.mean((1, 2), keepdims=True) * y).sum(-1), 0.0))
    assert maps[0].shape == (2, 9, 7) and maps[0].max() > 0.0
    assert np.abs(maps[1] - maps[0]).max() <= 1e-4 * maps[0].max()


@pytest.mark.parametrize("seed", range(2))
def test_a_network_has_the_taps_it_is_asked_for(seed):
    whole = nfspec.resolve(small_spec())
    params, rng = trial_params(whole, 0), np.random.default_rng(seed)
    taps = [*whole.taps.items(), ("own", "final_act"), ("se", "stages.0.blocks.0.se")]
    kept = [taps[i] for i in rng.permutation(len(taps))[:5]]
    plan = replace(whole, taps=dict(kept))
    model = assemble(plan, params, taps=True, data_format="channels_last", dtype=None)
    x = images(EVEN)
    exact = nfspec.reference.forward(plan, params, x)
    allowed = bounds(plan, params, x, exact)
    tapped = outputs(model, x)
    assert list(exact) == list(plan.tap_info) == [tap for tap, _ in kept]
    assert set(tapped) == set(model.output) == set(exact)  # Keras sorts them
    for tap, y in tapped.items():
        assert np.linalg.norm(y - exact[tap]) <= allowed[tap], tap
