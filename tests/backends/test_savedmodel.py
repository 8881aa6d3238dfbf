"""SavedModels in TensorFlow, and what is in them."""

import json
import os
import shutil

import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError

import networks

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    pytest.skip("of TensorFlow", allow_module_level=True)

import tensorflow as tf

from nfspec.backends.exporters import nhwc, savedmodel
from nfspec.backends.exporters.settings import Network, Settings, as_given, as_nhwc
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.proof import prove_outputs

IDIOMS = "two-attentions"  # the network for what does not depend on the network
SIZES = ((2, 33, 46), (1, 48, 35))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")

    def of(name):
        plan = nfspec.resolve(networks.network(name, folder))
        return plan, networks.drawn(plan)[0]

    return of


def same(plan, params, sizes=SIZES, **choices):
    """True if every output of the plan in TensorFlow's operators is that of the reference."""
    network = Network(plan, params, Settings(**choices).checked(plan))
    holder, function = savedmodel.module_of(network)

    def outputs(images):
        found = function(tf.constant(as_given(images, network.settings)))
        return {name: as_nhwc(v.numpy(), network.settings) for name, v in found.items()}

    rows = prove_outputs(plan, params, {"": outputs}, network.settings.outputs, sizes)
    require_known(function)
    assert holder.weights
    return all(row.within for row in rows)


def require_known(function):
    """Every operator is one that `savedmodel.load` runs."""
    kinds = {node.type for node in function.graph.get_operations()}
    assert not kinds - savedmodel.ARITHMETIC - {"Placeholder"}


@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
@pytest.mark.parametrize("size", [(97, 130), (64, 65)])
def test_every_operator_of_fixed_sides_is_known(name, size, small):
    plan, params = small(name)
    choices = {"size": size, "preprocess": True, "outputs": tuple(plan.taps)}
    for dtype in ("f32", "f16"):
        made = Network(plan, params, Settings(**choices, dtype=dtype).checked(plan))
        require_known(savedmodel.module_of(made)[1])


@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
def test_every_output_is_that_of_the_reference(name, small):
    plan, params = small(name)
    assert same(plan, params, outputs=tuple(plan.taps))


@pytest.mark.parametrize("kind", sorted(nfspec.plan.activations.FUNCTIONS))
def test_every_activation(kind):
    one = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", one | kinds))
    assert same(plan, trial_params(plan, 0), sizes=((2, 17, 14),))


@pytest.mark.parametrize("size", [(33, 46), (48, 35)])
def test_sides_that_are_fixed_need_no_shapes(size, small):
    plan, params = small("mixed-padding")
    assert same(plan, params, sizes=((2, *size),), size=size, layout="nchw", batch=2)
    network = Network(plan, params, Settings(size=size, batch=2).checked(plan))
    kinds = [node.type for node in savedmodel.module_of(network)[1].graph.get_operations()]
    assert not {"Shape", "Fill", "Conv2DBackpropInput", "Mul_1"} & {*kinds}
    assert kinds.count("Conv2D") >= sum(isinstance(op, nfspec.plan.WSConv) for op in plan.ops)


def test_a_folder_is_proved_and_proved_again(small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.savedmodel"
    proof = nfspec.export(plan, "savedmodel", path, params, outputs=("pool", "logits"))
    assert proof.same and proof.sizes == 6 and nfspec.verify(path).same
    # Whatever the network, the graph and the names of its variables take about half a megabyte.
    assert proof.bytes <= 1.15 * proof.weights + 5e5
    read = savedmodel.read(path)
    assert read.network.plan.digest == plan.digest
    folded = nfspec.fold(plan, params).params
    assert read.params.keys() == folded.keys()
    for name, value in folded.items():
        np.testing.assert_array_equal(read.params[name], value)
    found = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert set(found.structured_outputs) == {"pool", "logits"}
    assert set(found.structured_input_signature[1]) == {"images"}


def test_what_is_there_is_replaced_by_force_and_if_it_is_nfspecs(small, tmp_path):
    plan, params = small("plain")
    path = tmp_path / "a.savedmodel"
    choices = {"size": (33, 40), "batch": 1}
    path.mkdir()
    (path / "diary.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match=r"exists and has no assets\.extra"):
            nfspec.export(plan, "savedmodel", path, params, **choices, force=force)
    assert (path / "diary.txt").read_text() == "mine"
    shutil.rmtree(path)
    nfspec.export(plan, "savedmodel", path, params, **choices)
    with pytest.raises(InputError, match="--force"):
        nfspec.export(plan, "savedmodel", path, params, **choices)
    (path / "old").touch()
    nfspec.export(plan, "savedmodel", path, params, **choices, force=True)
    assert not (path / "old").exists() and [each.name for each in tmp_path.iterdir()] == [path.name]


RIGHT = savedmodel.TensorFlow


def mean_off(self, x):
    return tf.reduce_mean(x, (1, 2)) * 1.01


def padded_around(self, x, kernel, stride, dilation, around):
    """Half a kernel at both ends, as PyTorch's convs have it."""
    if stride == 1 or kernel.shape[0] == 1:
        return RIGHT.convolve(self, x, kernel, stride, dilation, around)
    pad = int(kernel.shape[0]) // 2
    return RIGHT.convolve(self, x, kernel, stride, dilation, [(pad, pad), (pad, pad)])


MISTAKES = {
    "mean": mean_off,
    "convolve": padded_around,
    "activate": lambda self, kind, x, slope: (
        tf.nn.gelu(x, approximate=False)
        if kind == "gelu_tanh"
        else RIGHT.activate(self, kind, x, slope)
    ),
    "slide": lambda self, x, kernel: x * kernel[1],
    "pool": lambda self, x, op, around: tf.nn.max_pool2d(x, op.window, op.stride, "SAME"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused(name, small, tmp_path, monkeypatch):
    class Wrong(RIGHT):
        pass

    monkeypatch.setattr(Wrong, name, MISTAKES[name])
    monkeypatch.setattr(savedmodel, "TensorFlow", Wrong)
    plan, params = small(IDIOMS)
    with pytest.raises(nfspec.ProofError):
        nfspec.export(plan, "savedmodel", tmp_path / "a.savedmodel", params, batch=2)
    assert not list(tmp_path.iterdir())


def test_a_gain_that_is_left_out_is_refused(small, tmp_path, monkeypatch):
    right = nhwc._times
    monkeypatch.setattr(nhwc, "_times", lambda x, factor: x if factor == 2.0 else right(x, factor))
    plan, params = small(IDIOMS)
    with pytest.raises(nfspec.ProofError):
        nfspec.export(plan, "savedmodel", tmp_path / "a.savedmodel", params, size=(33, 40))


def test_a_graph_that_reads_files_is_not_run(small, tmp_path):
    plan, params = small("plain")
    path = tmp_path / "a.savedmodel"
    nfspec.export(plan, "savedmodel", path, params, size=(33, 40), batch=1)
    said = (path / savedmodel.METADATA).read_text()

    class Spy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 33, 40, 3), tf.float32, name="images")])
        def function(self, images):
            return {"logits": tf.strings.length(tf.io.read_file("/etc/passwd"))}

    spy = Spy()
    shutil.rmtree(path)
    tf.saved_model.save(spy, str(path), signatures=spy.function)
    (path / savedmodel.METADATA).parent.mkdir()
    (path / savedmodel.METADATA).write_text(said)
    with pytest.raises(InputError, match="ReadFile, which nfspec does not write"):
        savedmodel.load(path)


def test_a_folder_of_others(tmp_path):
    path = tmp_path / "a.savedmodel"
    path.mkdir()
    (path / "assets.extra").mkdir()
    for text, words in (("{", "is not JSON"), ("[]", "is no table"), ("{}", "no metadata")):
        (path / savedmodel.METADATA).write_text(text)
        with pytest.raises(InputError, match=words):
            nfspec.verify(path)
    (path / savedmodel.METADATA).write_text(json.dumps({"nfspec": "1", "spec": "{}"}))
    with pytest.raises(InputError, match="no metadata"):
        nfspec.verify(path)
    (path / savedmodel.GRAPH).write_bytes(b"\xff" * 99)
    with pytest.raises(InputError, match="no graph of TensorFlow"):
        savedmodel.load(path)
