"""Compiled and folded networks: the short way past Keras, saving, folding a model, exact probes."""

import keras
import numpy as np
import pytest
from keras import ops

import nfspec
from nfspec.backends.compiler import assemble
from nfspec.backends.layers import WSConv2D
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.target import target
from nfspec.errors import InputError
from nfspec.folding import fold
from nfspec.plan import INPUT, WSConv

from .small import SPEC, batches, small_params, small_plan, small_spec

BACKEND = keras.backend.backend()
DROPS = SPEC.replace("rate = 0.0", "rate = 0.5").replace("dropout = 0.0", "dropout = 0.5")


def compiled(spec=None, **how):
    return nfspec.compile(spec or small_spec(), BACKEND, small_params(), **how)


def images():
    return ops.convert_to_tensor(batches(1)[0])


def numpy(outputs):
    return {tap: ops.convert_to_numpy(y) for tap, y in outputs.items()}


def assert_near(found, wanted):
    """Within 32 roundings, in the L2 norm."""
    assert list(found) == list(wanted)
    for tap, y in wanted.items():
        assert np.linalg.norm(found[tap] - y) <= 32 * 2.0**-24 * np.linalg.norm(y), tap


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
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


def test_a_saved_folded_model_is_loaded(tmp_path):
    model = compiled(folded=True)
    model.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    x = images()
    assert_near({"logits": ops.convert_to_numpy(loaded(x))}, {"logits": numpy({"": model(x)})[""]})
    with pytest.raises(InputError, match="does not know its plan"):
        nfspec.fold(loaded)


EXACT = [
    case for case in PROPERTIES["EXACT-01"].cases(target(None)) if isinstance(case.op, WSConv)
]


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


@pytest.mark.skipif(BACKEND != "torch", reason="on PyTorch alone")
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
            model.layers[1].register_forward_hook(lambda *_, seen=seen: seen.append(1))
        with torch.no_grad():
            outputs.append([numpy(model(images(), training=training)) for _ in range(2)])
        assert bool(seen) == hooked
    for found, wanted in zip(*outputs, strict=True):
        for tap in wanted:
            np.testing.assert_array_equal(found[tap], wanted[tap])
    assert training != np.array_equal(outputs[0][0]["logits"], outputs[0][1]["logits"])


@pytest.mark.skipif(BACKEND != "torch", reason="on PyTorch alone")
def test_mixed_precision_goes_keras_way():
    assert compiled(dtype="mixed_bfloat16")._followed is None
    assert compiled(dtype="bfloat16")._followed is not None
