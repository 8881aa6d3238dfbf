"""Compiled models: taps, training, layouts, precision, saving, and errors."""

import os

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.layers import StochasticDepth, WSConv2D
from nfspec.backends.running import caller
from nfspec.conformance.cases.weights import trial_params
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.plan import free_memory

import networks
from .small import SPEC, batches, outputs, slow_where_compiled, small_spec, some_compiled
from golden import DATA, golden, relative

OTHER = {"jax": "torch", "torch": "tensorflow", "tensorflow": "jax"}


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_taps_are_the_plans_and_close_to_the_oracles(backend):
    g = golden("nfnet_tiny_odd")
    exact = nfspec.reference.forward(g.plan, g.params, g["x"])
    taps = outputs(nfspec.compile(g.spec, backend, g.params, taps=True), g["x"])
    assert set(taps) == set(exact) == set(g.plan.taps)
    assert {tap for tap in exact if relative(taps[tap], exact[tap]) > 3e-6} == set()


def test_each_stage_has_its_own_weight_standardisation(backend, tmp_path):
    """At sides that are odd, even and not square: three rules, one of which is none; and folded."""
    plan = nfspec.resolve(networks.network("ws-by-stage", tmp_path))
    params, images = networks.drawn(plan)
    model, folded = (
        nfspec.compile(plan, backend, params, folded=folded) for folded in (False, True)
    )
    for x in images:
        exact = nfspec.reference.forward(plan, params, x)["logits"]
        assert relative(outputs(model, x), exact) <= 3e-6
        assert relative(outputs(folded, x), exact) <= 3e-6


def test_parameters_go_in_and_come_out_unchanged(backend):
    g = golden("nf_regnet_tiny")
    params = nfspec.params_of(nfspec.compile(g.spec, backend, g.params))
    assert set(params) == set(g.params)
    assert all(np.array_equal(params[name], value) for name, value in g.params.items())


def test_without_parameters_a_model_starts_as_init_draws(backend):
    g = golden("nfnet_tiny")
    params = nfspec.params_of(nfspec.compile(g.spec, backend))
    exact = nfspec.init(g.plan)
    assert all(params[name].tobytes() == value.tobytes() for name, value in exact.items())


def test_parameters_that_do_not_fit_are_refused(backend):
    g = golden("nfnet_tiny")
    params = {**g.params, "final_conv.gain": g.params["final_conv.gain"][:-1]}
    with pytest.raises(nfspec.WeightError, match=r"final_conv\.gain.*\(95,\).*\(96,\)"):
        nfspec.compile(g.spec, backend, params)


def test_parameters_of_other_ends_are_fitted_where_that_is_asked_for(backend):
    values = {("head", "classes"): 7, ("input", "channels"): 1}
    values |= {("input", "mean"): (0.5,), ("input", "std"): (0.25,)}
    g, spec = golden("nfnet_tiny"), load(DATA / "nfnet_tiny.toml", [given("a test", values)])
    with pytest.raises(nfspec.WeightError, match=r"compile\(\.\.\., fit=True\)"):
        nfspec.compile(spec, backend, g.params)
    fitted = nfspec.weights.fit(g.params, nfspec.resolve(spec))
    for network in (spec, nfspec.resolve(spec)):
        with pytest.warns(nfspec.weights.FitWarning) as caught:
            model = nfspec.compile(network, backend, g.params, fit=True)
        assert tuple(str(w.message) for w in caught) == fitted.changes
        assert {w.filename for w in caught} == {__file__}
        actual = nfspec.params_of(model)
        assert all(np.array_equal(actual[name], v) for name, v in fitted.params.items())
    nfspec.compile(g.spec, backend, g.params, fit=True)  # without a warning


@pytest.mark.parametrize("how", [{}, {"folded": True}, {"plain": True}], ids=str)
def test_a_network_larger_than_the_memory_is_refused(backend, how, monkeypatch):
    monkeypatch.setattr(free_memory, "_of_machine", lambda: 2**18)
    with pytest.raises(nfspec.InputError, match=r"to compile this network of [\d,]+ parameters"):
        nfspec.compile(golden("nfnet_tiny").spec, backend, **how)


def test_another_backend_in_the_same_process_is_refused(backend):
    with pytest.raises(nfspec.BackendError, match=f"already runs on {backend}.*new process"):
        nfspec.compile(golden("nfnet_tiny").spec, OTHER[backend])


# The second has a max pool, too, and blocks of a conv less.
@pytest.mark.parametrize(
    "network", some_compiled(["nfnet_tiny_odd", "nf_resnet_tiny"], ["nf_resnet_tiny"])
)
def test_channels_first_is_the_same_network(network, backend):
    g = golden(network)
    model = nfspec.compile(g.spec, backend, g.params, data_format="channels_first")
    logits = outputs(model, np.ascontiguousarray(g["x"].transpose(0, 3, 1, 2)))
    assert relative(logits, g["logits"]) <= 3e-6


def test_a_data_format_that_does_not_exist_is_refused(backend):
    with pytest.raises(nfspec.InputError, match='expected one of "channels_last"'):
        nfspec.compile(golden("nfnet_tiny").spec, backend, data_format="nchw")


def standardised_in_call(layer, call):
    """The standardised kernel as `call` sees it, where Keras casts variables."""
    seen = []
    standardised = layer.standardised_kernel
    layer.standardised_kernel = lambda: seen.append(standardised()) or seen[-1]
    call()
    del layer.standardised_kernel
    return seen[0]


def test_mixed_bfloat16_standardises_in_float32(backend):
    g = golden("nfnet_tiny")
    model = nfspec.compile(g.spec, backend, g.params, dtype="mixed_bfloat16")
    layer = model.get_layer("stages_1_blocks_0_conv1")
    run, logits = caller(model) if backend == "jax" else model, []
    x = keras.ops.convert_to_tensor(g["x"])
    kernel = standardised_in_call(layer, lambda: logits.append(run(x)))
    assert layer.compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"
    assert keras.backend.standardize_dtype(logits[0].dtype) == "float32"
    # bfloat16 rounds to 2^-9; some 60 operations that do so independently, logits of norm 1 from a
    # pool of norm 18: within 18 times sqrt(60) of them, and no closer than float32 would be.
    assert 2**-16 < relative(numpy(logits[0]), g["logits"]) < 18 * 60**0.5 * 2**-9


@pytest.mark.parametrize(("ws_dtype", "dtype"), [("float32", "float32"), ("compute", "bfloat16")])
def test_ws_dtype(ws_dtype, dtype):
    layer = WSConv2D(4, 3, ws_dtype=ws_dtype, dtype="mixed_bfloat16")
    x = np.zeros((1, 8, 8, 4), np.float32)
    layer(x)
    kernel = standardised_in_call(layer, lambda: layer(x))
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype


def test_a_saved_model_comes_back_the_same(backend, tmp_path):
    """One with every kind of layer."""
    spec = nfspec.load("timm/test_nfnet")
    spec = spec.model_copy(
        update={
            "stages": spec.stages.model_copy(update={"attention": ("eca", "se", "eca", "none")}),
            "stochastic_depth": spec.stochastic_depth.model_copy(update={"rate": 0.1}),
            "head": spec.head.model_copy(update={"dropout": 0.2}),
            "stem": spec.stem.model_copy(update={"pool": "max"}),
        }
    )
    params = trial_params(nfspec.resolve(spec), 0)
    model = nfspec.compile(spec, backend, params, taps=True)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    before, after = outputs(model, x), outputs(again, x)
    assert set(after) == set(before)
    assert all(np.array_equal(after[tap], before[tap]) for tap in before)
    kept = nfspec.params_of(again)
    assert set(kept) == set(params)
    assert all(np.array_equal(kept[name], value) for name, value in params.items())


@pytest.mark.parametrize(("rescale", "kept"), [(False, 1.0), (True, 1.0 / 0.75)])
def test_stochastic_depth_drops_whole_images(rescale, kept):
    layer = StochasticDepth(0.25, rescale=rescale, seed=1)
    x = np.ones((4000, 2, 2, 3), np.float32)
    assert np.array_equal(numpy(layer(x, training=False)), x)
    images = numpy(layer(x, training=True)).reshape(4000, -1)
    assert (images == images[:, :1]).all()
    assert set(np.unique(images)) == {np.float32(0.0), np.float32(kept)}
    # A binomial's standard deviation: sqrt(0.25 * 0.75 / 4000) = 0.0068; six of them.
    assert abs((images[:, 0] == 0).mean() - 0.25) < 0.041


def test_training_mode_is_random_and_evaluation_is_not(backend):
    """The network drops by stochastic depth alone, which never drops the first block of all."""
    spec = small_spec(
        SPEC.replace("rate = 0.0", "rate = 0.5").replace("depth = [1]", "depth = [2]")
    )
    model = nfspec.compile(spec, backend, trial_params(nfspec.resolve(spec), 0))
    (drop,) = (layer for layer in model.layers if isinstance(layer, StochasticDepth))
    drop.seed_generator.state.assign([1, 2])
    x = batches(1)[0]
    calls = [outputs(model, x, training) for training in (False, False, True, True)]
    assert np.array_equal(calls[0], calls[1])
    assert not np.array_equal(calls[2], calls[3])


@slow_where_compiled  # test_training.py compares what `fit` does with the reference
def test_fit_reduces_the_loss(backend):
    model = nfspec.compile(small_spec(SPEC.replace("[head]", "[head]\ninit_std = 0.0")), backend)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    x, labels, _ = batches(1)
    history = model.fit(x, labels.argmax(1), epochs=3, verbose=0).history["loss"]
    assert history[2] < history[0] == pytest.approx(np.log(10), rel=1e-5)  # a head of zeros


def test_the_process_runs_on_the_backend_asked_for(backend):
    assert keras.backend.backend() == backend == os.environ["KERAS_BACKEND"]
