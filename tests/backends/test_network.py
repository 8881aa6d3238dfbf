"""Compiled and folded networks: the short way past Keras, saving, folding a model, exact probes."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
from keras import ops

import nfspec
from nfspec.backends.compiler import assemble
from nfspec.backends.layers import Conv2D, Residual, SpatialMean, SqueezeExcite, WSConv2D
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.plan import INPUT, WSConv
from nfspec.rewrites.folding import fold

from .gradients import loss_gradients
from .small import SPEC, batches, small_params, small_plan, small_spec, some_compiled

BACKEND = keras.backend.backend()
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="on PyTorch alone")
DROPS = SPEC.replace("rate = 0.0", "rate = 0.5").replace("dropout = 0.0", "dropout = 0.5")


def compiled(spec=None, **how):
    return nfspec.compile(spec or small_spec(), BACKEND, small_params(), **how)


def images():
    return ops.convert_to_tensor(batches(1)[0])


def numpy(outputs):
    return {tap: ops.convert_to_numpy(y) for tap, y in outputs.items()}


def assert_near(taps, wanted):
    """Within 32 roundings, in the L2 norm."""
    assert list(taps) == list(wanted)
    for tap, y in wanted.items():
        assert np.linalg.norm(taps[tap] - y) <= 32 * 2.0**-24 * np.linalg.norm(y), tap


# The others are in test_taps.py, each compiled as a whole.
@pytest.mark.parametrize("how", some_compiled(["fast", "plain", "folded"], ["fast"]))
def test_taps_are_the_oracles(how):
    model = compiled(taps=True, plain=how == "plain", folded=how == "folded")
    exact = nfspec.reference.forward(small_plan(), small_params(), batches(1)[0])
    taps = numpy(model(images()))
    assert set(taps) == set(exact)
    for tap, y in exact.items():  # as near as test_compiler.py wants taps of such networks
        assert np.linalg.norm(taps[tap] - y) <= 3e-6 * np.linalg.norm(y), tap


FORMATS = ["channels_last", "channels_first"]


# The other format is in test_taps.py, against the reference.
@pytest.mark.parametrize("data_format", some_compiled(FORMATS, ["channels_last"]))
def test_folded_and_plain_networks_are_the_same(data_format):
    x = images()
    if data_format == "channels_first":
        x = ops.transpose(x, (0, 3, 1, 2))
    model = compiled(taps=True, data_format=data_format)
    wanted = numpy(model(x))
    assert_near(numpy(compiled(taps=True, data_format=data_format, plain=True)(x)), wanted)
    folded = nfspec.fold(model)
    assert_near(numpy(folded(x)), wanted)
    if BACKEND == "torch":
        import torch

        with torch.inference_mode():
            assert_near(numpy(folded(x)), wanted)
    assert not any(isinstance(layer, WSConv2D) for layer in folded.layers)
    assert_near(nfspec.unfold(folded)[1], small_params())


def test_a_folded_model_is_that_of_compile():
    a, b = nfspec.fold(compiled()), compiled(folded=True)
    for v, w in zip(a.trainable_variables, b.trainable_variables, strict=True):
        assert v.canonical == w.canonical
        np.testing.assert_array_equal(ops.convert_to_numpy(v), ops.convert_to_numpy(w))


@pytest.mark.parametrize(
    ("taps", "data_format", "dtype"),
    [
        (True, "channels_first", "mixed_bfloat16"),
        (False, "channels_last", "bfloat16"),
        (True, "channels_last", None),
    ],
)
def test_folding_a_model_keeps_taps_layout_and_dtype(taps, data_format, dtype):
    how = {"taps": taps, "data_format": data_format, "dtype": dtype}
    model = compiled(**how)
    folded, wanted = nfspec.fold(model), compiled(folded=True, **how)
    assert isinstance(folded.output, dict) == isinstance(model.output, dict) == taps
    assert folded.input_shape == model.input_shape
    if taps:
        assert list(folded.output) == list(model.output)
    layers = zip(folded.layers, wanted.layers, strict=True)
    for a, b in layers:
        assert a.get_config() == b.get_config()
    before = {layer.name: layer for layer in model.layers}
    for layer in folded.layers:
        assert layer.dtype_policy.name == before[layer.name].dtype_policy.name
        assert getattr(layer, "data_format", "") == getattr(before[layer.name], "data_format", "")


def test_a_model_is_folded_as_it_is_now():
    model = compiled()
    kernel = model.get_layer("head_fc").kernel
    kernel.assign(2.0 * ops.convert_to_numpy(kernel))
    params = {**small_params(), "head.fc.kernel": 2.0 * small_params()["head.fc.kernel"]}
    wanted = fold(small_plan(), params).params
    folded = nfspec.params_of(nfspec.fold(model))
    assert set(folded) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(folded[name], value, name)
    assert_near(nfspec.unfold(nfspec.fold(model))[1], params)


def test_no_gradient_is_lost_between_plain_kernels_and_fast():
    x, _, targets = batches(1)
    fast, wanted = (loss_gradients(compiled(plain=plain), x, targets) for plain in (False, True))
    # Of a gradient, sums over 8 images of 64 pixels: 16 times the root of that many roundings.
    near = 16 * 512**0.5 * 2.0**-24
    assert np.linalg.norm(fast[1] - wanted[1]) <= near * np.linalg.norm(wanted[1])
    assert set(fast[2]) == set(wanted[2])
    for name, gradient in wanted[2].items():
        assert np.linalg.norm(gradient) > 0.0
        assert np.linalg.norm(fast[2][name] - gradient) <= near * np.linalg.norm(gradient), name


@pytest.mark.parametrize("folded", [False, True])
def test_a_saved_model_is_loaded(folded, tmp_path):
    model = compiled(folded=folded, taps=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in nfspec.params_of(model).items():
        np.testing.assert_array_equal(nfspec.params_of(loaded)[name], value, name)
    x = images()
    taps, wanted = numpy(loaded(x)), numpy(model(x))
    assert set(taps) == set(wanted)
    for tap, y in wanted.items():
        np.testing.assert_array_equal(taps[tap], y, tap)
    assert loaded.plan == model.plan
    if not folded:
        assert_near(numpy(nfspec.fold(loaded)(x)), wanted)


LAYERS = [
    Conv2D(8, 3, strides=2, groups=2, padding="symmetric", kind="leaky_relu", slope=0.2),
    Residual(0.3, skip_gain=False, data_format="channels_first"),
    SpatialMean(scale=1.7, data_format="channels_first"),
    SqueezeExcite(4, gate_only=True),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_configurations_come_back(layer):
    """Every argument of the constructor."""
    again = type(layer).from_config(layer.get_config())
    for name, argument in inspect.signature(type(layer).__init__).parameters.items():
        if name != "self" and argument.kind is not inspect.Parameter.VAR_KEYWORD:
            assert getattr(again, name) == getattr(layer, name), name
    assert again.canonical == layer.canonical


def test_a_copied_model_is_the_same():
    model = compiled()
    x = images()
    wanted = ops.convert_to_numpy(model(x))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), wanted)


EXACT = [case for case in PROPERTIES["EXACT-01"].cases(target(None)) if isinstance(case.op, WSConv)]


@pytest.mark.parametrize("case", EXACT[:4])
def test_a_folded_conv_gives_the_same_bits(case):
    """The exact probes: integers, kernels of ±1 and a fan-in that is a power of four."""
    from dataclasses import replace

    prop = PROPERTIES["EXACT-01"]
    (arrays,) = prop.calls(case)
    wanted = prop.expect(case, [arrays]).outputs["y"].value
    op = replace(case.op, inputs=(INPUT,))
    plan = replace(
        small_plan(), ops=(op,), taps={"logits": op.name}, channels=op.in_channels, blocks=()
    )
    params = {f"{op.name}.{local}": arrays[local] for local in ("kernel", "gain", "bias")}
    folded = fold(plan, params)
    model = assemble(
        folded.plan, folded.params, taps=False, data_format="channels_last", dtype=None
    )
    x = ops.convert_to_tensor(arrays["x"])
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), wanted.astype(np.float32))
    if BACKEND == "torch":
        import torch

        with torch.inference_mode():
            np.testing.assert_array_equal(model(x).numpy(), wanted.astype(np.float32))


@on_torch
@pytest.mark.parametrize("training", [False, True])
def test_the_short_way_is_keras_way(training):
    """With a hook a model is called Keras's way; draws go on as they would."""
    import torch

    spec = small_spec(DROPS)
    outputs = []
    for hooked in (False, True):
        model = compiled(spec, taps=True)
        for layer in model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([1, 2])
        seen: list[int] = []
        if hooked:
            for layer in model.layers:
                layer.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        with torch.no_grad():
            outputs.append([numpy(model(images(), training=training)) for _ in range(2)])
        assert bool(seen) == hooked
    for taps, wanted in zip(*outputs, strict=True):
        for tap in wanted:
            np.testing.assert_array_equal(taps[tap], wanted[tap])
    assert training != np.array_equal(outputs[0][0]["logits"], outputs[0][1]["logits"])


def hooked(model):
    """A model whose layers are called Keras's way."""
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: None)
    return model


def counted(model, monkeypatch):
    """Names of the layers in the order in which they are called Keras's way."""
    calls: list[str] = []
    original = keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
        calls.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__call__", call)
    model(images())
    monkeypatch.undo()
    return [name for name in calls if name in {layer.name for layer in model.layers}]


@on_torch
@pytest.mark.parametrize("kind", ["compiled", "loaded", "mixed", "hook"])
def test_layers_are_called_keras_way_where_they_have_hooks(kind, monkeypatch, tmp_path):
    model = compiled(dtype="mixed_bfloat16" if kind == "mixed" else None)
    if kind == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    called = counted(hooked(model) if kind == "hook" else model, monkeypatch)
    assert sorted(called) == (sorted(names) if kind == "hook" else [])


@on_torch
@pytest.mark.parametrize("how", ["float32", "bfloat16", "folded", "plain", "channels_first"])
def test_the_short_way_gives_the_same_bits(how):
    options = {
        "float32": {},
        "bfloat16": {"dtype": "bfloat16"},
        "folded": {"folded": True},
        "plain": {"plain": True},
        "channels_first": {"data_format": "channels_first"},
    }[how]
    x = images()
    if how == "channels_first":
        x = x.permute(0, 3, 1, 2)
    short, keras_way = compiled(taps=True, **options), hooked(compiled(taps=True, **options))
    taps, wanted = short(x), keras_way(x)
    assert set(taps) == set(wanted) == set(small_plan().taps)
    for tap, y in wanted.items():
        assert taps[tap].dtype == y.dtype
        assert bool((taps[tap] == y).all()), tap


@on_torch
@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int64"])
def test_images_of_other_dtypes(dtype):
    import torch

    x = (20.0 * images() + 100.0).clamp(0.0, 255.0).to(getattr(torch, dtype))
    short, keras_way = compiled(), hooked(compiled())
    for given in (x, x.numpy()):
        logits, wanted = short(given), keras_way(given)
        assert logits.dtype == wanted.dtype == torch.float32
        assert torch.equal(logits, wanted)


@on_torch
@pytest.mark.parametrize("folded", [False, True])
def test_without_gradients_and_with(folded):
    import torch

    model, x = compiled(folded=folded, taps=True), images()
    wanted = {tap: y.detach().numpy() for tap, y in model(x).items()}
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert_near(numpy(model(x)), wanted)


@on_torch
def test_gradients_are_those_of_keras_way():
    """Every parameter and the images are compared, with stochastic depth and dropout active."""
    import torch

    results = []
    for model in (compiled(small_spec(DROPS)), hooked(compiled(small_spec(DROPS)))):
        for layer in model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([1, 2])
        x = images().clone().requires_grad_()
        weights = [v.value for v in model.trainable_variables]
        y = model(x, training=True)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *weights])])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@on_torch
def test_training_reaches_a_network_within_a_model():
    import torch

    model = compiled(small_spec(DROPS))
    image = keras.Input((None, None, 3))
    outer, x = keras.Model(image, model(image)), images()
    assert not torch.equal(outer(x, training=True), outer(x, training=True))
    assert torch.equal(outer(x, training=False), model(x))
    assert torch.equal(outer(x), model(x))


@on_torch
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_of_the_way_back_are_called(kind):
    model, seen = compiled(), []
    getattr(model.get_layer("final_act"), kind)(lambda *_: seen.append(1))
    model(images()).sum().backward()
    assert seen == [1]


@pytest.mark.parametrize("folded", [False, True])
def test_parameters_are_read_in_the_plans_order(folded):
    model = compiled(folded=folded)
    assert list(nfspec.params_of(model)) == list(model.plan.parameters)


def test_a_plain_model_is_folded_to_a_plain_one():
    for plain in (False, True):
        folded = nfspec.fold(copy.deepcopy(compiled(plain=plain)))
        layers = [layer for layer in folded.layers if hasattr(layer, "kernels")]
        assert {layer.plain for layer in layers} == {plain}


@on_torch
def test_a_step_starts_without_gradients():
    """Their memory is free for the forward pass: none is left where the first layer is called."""
    import torch

    model, (x, labels, _) = compiled(), batches(1)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True))
    weights = [v.value for v in model.trainable_variables]
    left: list[int] = []

    def look(layer, images):
        if images[0].device.type != "meta":  # as where Keras looks for shapes
            left.append(sum(w.grad is not None for w in weights))

    model.layers[1].register_forward_pre_hook(look)
    for weight in weights:
        weight.grad = torch.full_like(weight, 1e6)
    model.train_on_batch(x, labels)
    model.train_on_batch(x, labels)
    assert left == [0, 0]
    assert all(bool(w.isfinite().all()) for w in weights)
