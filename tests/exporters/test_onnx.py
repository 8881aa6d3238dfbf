"""ONNX files in onnxruntime: every kind of network, and what is in a file."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

import nfspec
from nfspec import plan as p
from nfspec.backends.exporters import onnx as format_onnx
from nfspec.backends.exporters import protobuf
from nfspec.backends.exporters.format import Facts
from nfspec.backends.exporters.settings import Network, Settings, as_given, as_nhwc
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.exporting import sizes_of
from nfspec.conformance.proof import prove_outputs

import networks

IDIOMS = "two-attentions"  # the network for what does not depend on the network
# What inference needs: convs, activations, pools, attention, sums and the classifier.
PLAIN = {
    *("Conv", "Gemm", "Add", "Mul", "Transpose", "Flatten"),
    *("AveragePool", "MaxPool", "GlobalAveragePool"),
    *("Gelu", "Relu", "Sigmoid", "Softsign", "LeakyRelu"),
}


def written(folder, plan, params, **choices):
    """A file, and the network that is in it."""
    network = Network(plan, params, Settings(**choices).checked(plan))
    path = folder / "network.onnx"
    assert isinstance(format_onnx.write(path, network), Facts)
    return path, network


def proved(path, network, sizes):
    """The rows of a comparison of all outputs with the reference."""
    settings, run = network.settings, format_onnx.RUNTIME.load(path)

    def outputs(images):
        found = run(as_given(images, settings))
        return {name: as_nhwc(value, settings) for name, value in found.items()}

    assert network.params is not None
    runs = {"onnxruntime": outputs}
    return prove_outputs(network.plan, network.params, runs, settings.outputs, sizes)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_output_is_that_of_the_reference(name, small, tmp_path):
    plan, params = small(name)
    path, network = written(tmp_path, plan, params, outputs=tuple(plan.taps))
    onnx.checker.check_model(path, full_check=True)
    for row in proved(path, network, ((2, 33, 46), (1, 48, 35))):
        assert row.within, row


SLOW = ("celu", "elu", "relu6", "sigmoid", "softplus", "tanh")


@pytest.mark.parametrize(
    "kind",
    ["selu", "log_sigmoid", "gelu_erf"]
    + [pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW],
)
def test_every_activation(kind, tmp_path):
    one = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", one | kinds))
    path, network = written(tmp_path, plan, trial_params(plan, 0))
    assert all(row.within for row in proved(path, network, ((2, 17, 14),)))


@pytest.mark.slow  # all 75
@pytest.mark.parametrize("name", nfspec.variants())
def test_every_built_in_network_cut_to_a_few_blocks(name, tmp_path):
    plan = reduced_plan(nfspec.load(name))
    path, network = written(tmp_path, plan, trial_params(plan, 0), outputs=tuple(plan.taps))
    for row in proved(path, network, sizes_of(network)):
        assert row.within, row


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_fixed_sides_leave_padding_in_numbers(layout, small, tmp_path):
    plan, params = small(IDIOMS)
    choices = {"size": (35, 48), "batch": 2, "layout": layout, "outputs": ("features", "logits")}
    path, network = written(tmp_path, plan, params, **choices)
    assert all(row.within for row in proved(path, network, ((2, 35, 48),)))
    graph = onnx.load(path).graph
    assert not any(a.name == "auto_pad" for node in graph.node for a in node.attribute)
    shape = [2, 35, 48, 3] if layout == "nhwc" else [2, 3, 35, 48]
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == shape
    features = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    (found,) = (format_onnx.load(path)(np.zeros(shape, np.float32))["features"].shape,)
    assert features == list(found)


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l0"])
@pytest.mark.parametrize("size", [None, (224, 192)])
def test_nodes_are_those_of_plain_convs(name, size):
    """No weight standardisation, no shapes that are computed, no operators of others."""
    plan = nfspec.resolve(nfspec.load(name))
    model, tensors = format_onnx.without_weights(Network(plan, None, Settings(size=size)))
    assert {node.op_type for node in model.graph.node} <= PLAIN
    assert {(each.domain, each.version) for each in model.opset_import} == {("", 20)}
    convs = sum(len(op.parameters) for op in plan.ops if type(op).__name__ == "WSConv") // 3
    attention = sum(len(op.parameters) // 2 or 1 for op in plan.ops if "Ex" in type(op).__name__)
    attention += sum(type(op).__name__ == "ECA" for op in plan.ops)
    assert [node.op_type for node in model.graph.node].count("Conv") == convs + attention
    weights = sum(protobuf.sizes(tensors))
    assert len(model.SerializeToString()) <= 0.05 * weights
    assert weights < 4 * nfspec.count(plan).parameters


def test_an_average_that_counts_padding_has_as_much_on_each_side(small):
    """Older versions of onnxruntime divide by too little otherwise."""
    plan, params = small("dilated")
    assert any(isinstance(op, p.Pool) and op.counted for op in plan.ops)
    model, _ = format_onnx.without_weights(Network(plan, params, Settings()))
    for node in model.graph.node:
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if given.get("count_include_pad"):
            assert len({*given["pads"]}) == 1


def test_nfnet_f0_has_few_nodes():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    model, _ = format_onnx.without_weights(Network(plan, None, Settings()))
    assert len(model.graph.node) == 225


def test_a_file_says_what_it_is(small, tmp_path):
    plan, params = small(IDIOMS)
    path, _ = written(tmp_path, plan, params, license="CC-BY-4.0", outputs=("pool",))
    said = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert said["name"] == plan.name and said["spec_digest"] == plan.digest
    assert said["license"] == "CC-BY-4.0" and said["nfspec"] == nfspec.__version__
    assert '"mean"' in said["preprocessing"] and "RGB" in said["preprocessing"]
    read = format_onnx.read(path)
    assert read.network.plan.digest == plan.digest
    assert read.network.settings.outputs == ("pool",)
    assert not any(name.startswith("head.fc") for name in read.params)


def test_weights_come_back_to_the_bit(small, tmp_path):
    plan, params = small(IDIOMS)
    path, _ = written(tmp_path, plan, params)
    folded, back = nfspec.fold(plan, params).params, format_onnx.read(path).params
    assert back.keys() == folded.keys()
    for name, value in folded.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].shape == value.shape


@pytest.mark.parametrize("longest", [protobuf.LONGEST, 0])
def test_equal_networks_have_equal_files(longest, small, tmp_path, monkeypatch):
    """In one file and in two, as networks of over 2 GB are written."""
    monkeypatch.setattr(protobuf, "LONGEST", longest)
    plan, params = small(IDIOMS)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        path, network = written(folder, plan, params)
    first, second = ({f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders)
    assert first == second
    assert set(first) == {"network.onnx", *(["network.onnx.data"] if longest == 0 else [])}
    onnx.checker.check_model(path, full_check=True)
    assert all(row.within for row in proved(path, network, ((1, 33, 32),)))
    assert format_onnx.read(path).params.keys() == network.folded.parameters.keys()


def test_no_framework_is_imported(small, tmp_path):
    plan, _ = small(IDIOMS)
    program = (
        "import sys, nfspec\n"
        "from nfspec.conformance.cases.weights import trial_params\n"
        f"plan = nfspec.resolve(nfspec.load({plan.name + '.toml'!r}))\n"
        "nfspec.export(plan, 'onnx', 'a.onnx', trial_params(plan, 0), size=(32, 33))\n"
        "print({'keras', 'jax', 'torch', 'tensorflow'} & {*sys.modules})"
    )
    networks.network(IDIOMS, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.onnx", f"{plan.name}.toml"]
