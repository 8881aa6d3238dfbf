"""StableHLO files in JAX, and what is in them."""

import json
import os
import zipfile

import numpy as np
import pytest
from pages import blocks

import nfspec
from nfspec.errors import InputError

import networks

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

from nfspec.backends.exporters import stablehlo
from nfspec.backends.exporters.settings import Network, Settings
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.compare import distance

QUICK = {"two-attentions", "mixed-padding"}  # the others take seconds each
ONE = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}


def exported(name, folder, **choices):
    plan = nfspec.resolve(networks.network(name, folder))
    params = networks.drawn(plan)[0]
    path = folder / "a.stablehlo"
    return plan, params, path, nfspec.export(plan, "stablehlo", path, params, **choices)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(networks.NETWORKS)
    ],
)
def test_every_output_at_every_size(name, tmp_path):
    plan = nfspec.resolve(networks.network(name, tmp_path))
    *_, proof = exported(name, tmp_path, outputs=tuple(plan.taps))
    assert proof.same and proof.sizes == 6


@pytest.mark.slow  # half a minute
@pytest.mark.parametrize("kind", sorted(nfspec.plan.activations.FUNCTIONS))
def test_every_activation(kind, tmp_path):
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", ONE | kinds))
    params = trial_params(plan, 0)
    path = tmp_path / "a.stablehlo"
    assert nfspec.export(plan, "stablehlo", path, params, size=(17, 14), batch=1).same


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_a_file_is_proved_again(dtype, tmp_path):
    choices = {"size": (33, 40), "batch": 2, "layout": "nchw", "preprocess": True, "dtype": dtype}
    plan, params, path, proof = exported("two-attentions", tmp_path, **choices)
    assert proof.same and nfspec.verify(path).same
    assert proof.bytes <= 1.05 * proof.weights + 1e5  # the program
    # Nothing is left of shapes where they are fixed.
    kinds = set(proof.facts.nodes)
    assert not {"get_dimension_size", "custom_call", "dynamic_reshape", "dynamic_conv"} & kinds
    read, folded = stablehlo.read(path), nfspec.fold(plan, params).params
    unit = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    assert read.params.keys() == folded.keys()
    for key, value in folded.items():
        np.testing.assert_allclose(read.params[key], value, rtol=unit, atol=2.0**-25 if unit else 0)


def test_convs_are_those_that_each_platform_likes(tmp_path):
    """On GPUs and TPUs a grouped conv is one conv, and on CPUs as many as it has groups."""
    import jax
    from jax import export

    if jax.__version_info__ < (0, 7):
        pytest.skip("JAX 0.5 has the forms of all platforms in each file")
    plan = nfspec.resolve(networks.network("two-attentions", tmp_path))
    network = Network(plan, None, Settings(size=(33, 40), batch=1).checked(plan))
    convs = sum(isinstance(op, nfspec.plan.WSConv) for op in plan.ops)
    found = {}
    for platform in stablehlo.PLATFORMS:
        made = export.export(stablehlo._function(network), platforms=[platform])
        text = made(*stablehlo._arguments(network)).mlir_module()
        found[platform] = text.count("stablehlo.convolution")
    assert found["cuda"] == found["tpu"] < found["cpu"] and found["tpu"] >= convs


def test_a_mistake_is_refused(tmp_path, monkeypatch):
    class Wrong(stablehlo._Jax):
        def mean(self, x):
            return x.mean((1, 2)) * 1.01

    monkeypatch.setattr(stablehlo, "_Jax", Wrong)
    with pytest.raises(nfspec.ProofError):
        exported("two-attentions", tmp_path, size=(33, 40), batch=1)
    assert not (tmp_path / "a.stablehlo").exists()


def archive(path, how=zipfile.ZIP_STORED, **parts):
    with zipfile.ZipFile(path, "w", how) as made:
        for name, data in parts.items():
            made.writestr(name, data)
    return path


def test_files_of_others(tmp_path):
    *_, good, _ = exported("two-attentions", tmp_path, size=(33, 40), batch=1)
    with zipfile.ZipFile(good) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    bad = tmp_path / "b.stablehlo"
    less = dict(list(parts.items())[:2])
    weights = parts[stablehlo.WEIGHTS]
    cases = [
        ({**parts, stablehlo.METADATA: b"{"}, zipfile.ZIP_STORED, "cannot be read|can be read"),
        ({**parts, stablehlo.METADATA: b"[]"}, zipfile.ZIP_STORED, "is no table"),
        (less, zipfile.ZIP_STORED, "weights.safetensors"),
        (parts, zipfile.ZIP_DEFLATED, "compressed"),
        ({**parts, stablehlo.WEIGHTS: weights[:5000]}, zipfile.ZIP_STORED, "can be read"),
        (
            {**parts, stablehlo.PROGRAM: b"no program"},
            zipfile.ZIP_STORED,
            "cannot load its program",
        ),
    ]
    for changed, how, words in cases:
        archive(bad, how, **changed)
        with pytest.raises(InputError, match=words):
            stablehlo.load(bad)
    bad.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"not a \.stablehlo file"):
        nfspec.verify(bad)
    header = json.loads(parts[stablehlo.METADATA])
    assert header["name"] == "two-attentions"


def test_a_program_with_a_custom_call_is_not_run(tmp_path):
    import jax
    from jax import export
    from jax import numpy as jnp

    *_, good, _ = exported("two-attentions", tmp_path, size=(33, 40), batch=1)
    with zipfile.ZipFile(good) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    # A factorisation is a call of LAPACK's.
    calls = export.export(jax.jit(jnp.linalg.cholesky), platforms=["cpu"])(
        jax.ShapeDtypeStruct((3, 3), "float32")
    )
    bad = archive(tmp_path / "b.stablehlo", **{**parts, stablehlo.PROGRAM: calls.serialize()})
    with pytest.raises(InputError, match="custom call, which nfspec does not write"):
        stablehlo.load(bad)


def test_the_block_of_the_page_runs(tmp_path, monkeypatch):
    (block,) = [text for text in blocks("docs/deploy.md", "python") if "jax" in text]
    monkeypatch.chdir(tmp_path)
    plan, params, path, _ = exported("two-attentions", tmp_path, batch=2, size=(96, 128))
    path.rename("net.stablehlo")
    names: dict[str, object] = {}
    exec(compile(block, "docs/deploy.md", "exec"), names)
    exact = nfspec.reference.forward(plan, params, np.zeros((2, 96, 128, 3)))["logits"]
    assert distance(np.asarray(names["logits"]), exact) < 1e-5
