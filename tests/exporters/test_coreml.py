"""Core ML's programs, proved by an interpreter, and what is in them."""

import subprocess
import sys

import numpy as np
import pytest

import nfspec
from nfspec.backends.exporters import coreml, mil
from nfspec.backends.exporters.settings import Settings
from nfspec.conformance.cases.weights import trial_params
from nfspec.errors import InputError

import networks

IDIOMS = "two-attentions"  # the network for what does not depend on the network

pytestmark = pytest.mark.slow  # to import coremltools takes seconds


@pytest.fixture(scope="module", autouse=True)
def installed():
    pytest.importorskip("coremltools")


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("size", [(67, 74)])
def test_a_file_is_proved_and_proved_again(name, size, small, tmp_path):
    plan, params = small(name)
    path = tmp_path / "a.mlpackage"
    proof = nfspec.export(plan, "coreml", path, params, size=size, outputs=[*plan.taps])
    assert proof.same and nfspec.verify(path).same
    convs = sum(isinstance(op, nfspec.plan.WSConv) for op in plan.ops)
    assert proof.facts.nodes["conv"] >= convs


@pytest.mark.parametrize("kind", sorted(nfspec.plan.activations.FUNCTIONS))
def test_every_activation(kind, tmp_path):
    one = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", one | kinds))
    path = tmp_path / "a.mlpackage"
    assert nfspec.export(plan, "coreml", path, trial_params(plan, 0), size=(17, 14)).same


@pytest.mark.parametrize(
    "choices",
    [
        {"layout": "nchw", "batch": 2, "outputs": ("stages.1.blocks.0", "pool")},
        {"dtype": "f16"},
        {"preprocess": True, "batch": 1, "layout": "nchw"},
    ],
)
def test_choices_and_weights_come_back(choices, small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.mlpackage"
    choices = {"size": (33, 40), **choices}
    assert nfspec.export(plan, "coreml", path, params, **choices).same
    read = coreml.read(path)
    assert read.network.settings == Settings(**choices)
    width = np.float16 if choices.get("dtype") == "f16" else np.float32
    for name, value in nfspec.fold(plan, params).params.items():
        if name in read.params:
            np.testing.assert_array_equal(read.params[name], value.astype(width))
    outputs = mil.spec_of(path).description.output
    names = [name.replace(".", "_") for name in choices.get("outputs", ("logits",))]
    assert [each.name for each in outputs] == names  # Core ML's names have no dots


@pytest.mark.parametrize(
    "choices, message",
    [
        ({}, "give one size"),
        ({"dtype": "bf16", "size": (33, 40)}, "f32 or f16"),
        ({"preprocess": True, "size": (33, 40)}, "--batch 1 --layout nchw"),
    ],
)
def test_what_is_not_offered(choices, message, small, tmp_path):
    plan, params = small(IDIOMS)
    with pytest.raises(InputError, match=message):
        nfspec.export(plan, "coreml", tmp_path / "a.mlpackage", params, **choices)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_others(small, tmp_path):
    plan, params = small("plain")
    path = tmp_path / "a.mlpackage"
    nfspec.export(plan, "coreml", path, params, size=(33, 40))
    (path / mil.WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="a weight is not in"):
        nfspec.verify(path)
    spec = mil.spec_of(path)
    next(op for op in mil.main(spec, path).operations if op.type == "conv").type = "custom_layer"
    (path / mil.MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(InputError, match="custom_layer, which nfspec does not write"):
        coreml.load(path)
    (path / mil.MODEL).write_bytes(b"\xff" * 99)
    with pytest.raises(InputError, match="no model of Core ML"):
        nfspec.verify(path)


def test_no_framework_is_imported(tmp_path):
    """Else Keras would run on TensorFlow from then on."""
    code = (
        "import sys, nfspec\n"
        "plan = nfspec.resolve(nfspec.load('nfnet-nano'))\n"
        "nfspec.export(plan, 'coreml', 'a.mlpackage', nfspec.init(plan), size=(32, 33))\n"
        "assert not {'tensorflow', 'keras'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
