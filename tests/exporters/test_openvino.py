"""OpenVINO files in OpenVINO, and what is in them."""

import os
import subprocess
import sys

import numpy as np
import pytest

import nfspec
from nfspec.backends.exporters import onnx as format_onnx
from nfspec.backends.exporters import openvino as format_openvino
from nfspec.backends.exporters.settings import Network, Settings, as_given, as_nhwc
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.proof import prove_outputs

IDIOMS = "two-attentions"  # the network for what does not depend on the network
OTHERS = ("max-pool", "valid-stem", "biased", "attention-mid")


def written(folder, plan, params, form=format_openvino, **choices):
    """A file, and the network that is in it."""
    network = Network(plan, params, Settings(**choices).checked(plan))
    path = folder / f"network{form.FORMAT.suffix}"
    form.write(path, network)
    return path, network


def within(path, network, sizes):
    """True if all outputs in OpenVINO are those of the reference."""
    settings, run = network.settings, format_openvino.load(path)

    def outputs(images):
        found = run(as_given(images, settings))
        return {name: as_nhwc(value, settings) for name, value in found.items()}

    params, runs = network.params, {"openvino": outputs}
    rows = prove_outputs(network.plan, params, runs, settings.outputs, sizes)
    return all(row.within for row in rows)


@pytest.mark.parametrize(
    "name",
    [IDIOMS, "mixed-padding", "short-kernels", "unbiased",
     *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)  # fmt: skip
def test_every_output_is_that_of_the_reference(name, small, tmp_path):
    plan, params = small(name)
    path, network = written(tmp_path, plan, params, outputs=tuple(plan.taps))
    assert within(path, network, ((2, 33, 46), (1, 48, 35)))


@pytest.mark.parametrize("name", [IDIOMS, "mixed-padding", "short-kernels"])
def test_an_onnx_file_runs_in_openvino(name, small, tmp_path):
    plan, params = small(name)
    path, network = written(tmp_path, plan, params, format_onnx)
    assert within(path, network, ((2, 33, 46),))


SLOW = ("celu", "elu", "gelu_erf", "relu6", "sigmoid", "softplus", "tanh")


@pytest.mark.parametrize(
    "kind",
    ["selu", "log_sigmoid", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)],
)
def test_every_activation(kind, tmp_path):
    one = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", one | kinds))
    path, network = written(tmp_path, plan, trial_params(plan, 0))
    assert within(path, network, ((2, 17, 14),))


@pytest.mark.parametrize("size", [None, (33, 40)])
def test_nothing_computes_shapes(size, small):
    plan, params = small(IDIOMS)
    model = format_openvino.model_of(Network(plan, params, Settings(size=size)))
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert not {"ShapeOf", "Reshape", "Broadcast", "Concat", "Range", "Gather"} & {*kinds}
    convs = sum(isinstance(op, nfspec.plan.WSConv) for op in plan.ops)
    assert kinds.count("Convolution") + kinds.count("GroupConvolution") >= convs
    assert kinds.count("Gelu") == sum(op.kind == "gelu_tanh" for op in activations(plan))


def activations(plan):
    return [op for op in plan.ops if isinstance(op, nfspec.plan.Activation)]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_weights_come_back(dtype, small, tmp_path):
    plan, params = small(IDIOMS)
    path, network = written(tmp_path, plan, params, dtype=dtype, preprocess=True, size=(33, 40))
    read = format_openvino.read(path)
    assert read.network.settings == network.settings
    assert read.network.plan.digest == plan.digest
    unit = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    assert read.params.keys() == network.folded.parameters.keys()
    for name, value in network.weights():
        # Numbers below the normal ones of float16 are off by half of its smallest one.
        np.testing.assert_allclose(
            read.params[name], value, rtol=unit, atol=2.0**-25 if unit else 0
        )


@pytest.mark.parametrize(
    "choices",
    [{"dtype": "f16", "layout": "nchw", "preprocess": True}, {"size": (40, 33), "batch": 1}],
)
def test_a_file_is_proved_and_proved_again(choices, small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.xml"
    proof = nfspec.export(plan, "openvino", path, params, outputs=("pool", "logits"), **choices)
    assert proof.same and nfspec.verify(path).same
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    assert proof.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_a_mistake_is_refused_and_kept(small, tmp_path, monkeypatch):
    plan, params = small(IDIOMS)
    wrong = {**format_openvino.ACTIVATIONS, "gelu_tanh": format_openvino.ACTIVATIONS["gelu_erf"]}
    monkeypatch.setattr(format_openvino, "ACTIVATIONS", wrong)
    with pytest.raises(nfspec.ProofError):
        nfspec.export(plan, "openvino", tmp_path / "a.xml", params, keep=True)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.failed.bin", "a.failed.xml"]
    assert not nfspec.verify(tmp_path / "a.failed.xml").same


def test_the_proof_sees_what_openvino_2026_4_makes_of_a_max_pool(small, tmp_path):
    """It moves an activation that follows conv and max pool to before the pool, whatever its shape;
    with silu that is another network. The ONNX file is right, and OpenVINO's is refused."""
    plan, params = small("max-pool")
    proof = nfspec.export(plan, "onnx", tmp_path / "a.onnx", params)
    runtime, other = proof.runtimes
    assert proof.same and proof.first_beyond(runtime) is None
    assert proof.first_beyond(other) is not None
    with pytest.raises(nfspec.ProofError, match="the file is not max-pool"):
        nfspec.export(plan, "openvino", tmp_path / "a.xml", params)


def test_a_file_of_others(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<net/>")
    with pytest.raises(nfspec.InputError, match="not an OpenVINO file that can be read"):
        nfspec.verify(path)


def test_its_import_sends_nothing():
    """The package would start a process that does, where no CI is told by the environment."""
    program = (
        "import multiprocessing.process, sys\n"
        "from nfspec.backends.exporters import openvino\n"
        "def start(self): raise AssertionError('a process was started')\n"
        "multiprocessing.process.BaseProcess.start = start\n"
        "assert openvino.imported().__name__ == 'openvino'\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    rest = {name: value for name, value in os.environ.items() if name != "CI"}
    subprocess.run([sys.executable, "-c", program], env=rest, check=True)
