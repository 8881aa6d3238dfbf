"""Exported files are proved before they have their names, and mistakes of exporters are refused."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import nfspec
from nfspec import plan as p
from nfspec.backends.exporters import graph, layout, settings
from nfspec.backends.exporters import onnx as format_onnx
from nfspec.backends.exporters.settings import Network
from nfspec.conformance import exporting
from nfspec.conformance.cases.weights import trial_params
from nfspec.errors import InputError

from specs import SQUARE_CLASSIFIER


@pytest.fixture(scope="module")
def network():
    plan = nfspec.resolve(nfspec.load("nfnet-f0", SQUARE_CLASSIFIER))
    return plan, trial_params(plan, 0)


def exported(network, folder, **choices):
    return nfspec.export(network[0], "onnx", folder / "a.onnx", network[1], **choices)


@pytest.fixture
def alone(monkeypatch):
    """The format's own runtime alone, to save time."""
    form = replace(format_onnx.FORMAT, runtimes=(format_onnx.RUNTIME,))
    monkeypatch.setattr(format_onnx, "FORMAT", form)
    monkeypatch.setattr(exporting, "format_of", lambda name: form)
    monkeypatch.setattr(exporting, "format_of_file", lambda path: form)


def test_a_file_is_proved_at_six_sizes_and_again(network, tmp_path):
    proof = exported(network, tmp_path)
    assert proof.same and proof.sizes == 6 and len(proof.rows) == 6 * len(proof.runtimes)
    assert [name.split()[0] for name in proof.runtimes] == ["onnxruntime", "OpenVINO"]
    sides = [(row.height, row.width) for row in proof.rows]
    assert all(height != width for height, width in sides)
    for axis in zip(*sides, strict=True):
        assert {side % 2 for side in axis} == {0, 1}
    assert len({row.batch for row in proof.rows}) > 2
    assert nfspec.verify(tmp_path / "a.onnx").same
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "choices",
    [
        {"dtype": "f16", "outputs": ("logits", "pool")},
        {"dtype": "bf16", "size": (40, 33)},
        {"preprocess": True, "layout": "nchw", "outputs": ("stages.1.blocks.0",)},
        {"preprocess": True, "dtype": "f16", "size": (40, 33), "batch": 3},
    ],
)
def test_choices_are_proved(choices, network, tmp_path):
    proof = exported(network, tmp_path, **choices)
    again = nfspec.verify(tmp_path / "a.onnx")
    assert again.same
    assert {row.output for row in again.rows} == {*choices.get("outputs", ("logits",))}
    assert [row.size for row in again.rows] == [row.size for row in proof.rows]


# Mistakes that exporters make. Each is a function of pytest's monkeypatch.


def _writing(monkeypatch, change):
    """Write what a function makes of the network."""
    write = format_onnx.write
    changed = replace(format_onnx.FORMAT, write=lambda path, made: write(path, change(made)))
    monkeypatch.setattr(exporting, "format_of", lambda name: changed)


def _with_plan(monkeypatch, kind, change):
    def changed(made):
        ops = tuple(change(op) if isinstance(op, kind) else op for op in made.plan.ops)
        return Network(replace(made.plan, ops=ops), made.params, made.settings)

    _writing(monkeypatch, changed)


def _with_params(monkeypatch, change):
    _writing(
        monkeypatch,
        lambda made: Network(
            made.plan, {name: change(name, v) for name, v in made.params.items()}, made.settings
        ),
    )


def _with_nodes(monkeypatch, kind, change):
    """Change the attributes of a kind of node."""
    add = graph.Graph.add

    def changed(self, node, name, *inputs, **attributes):
        if node == kind:
            attributes = change(attributes)
        return add(self, node, name, *inputs, **attributes)

    monkeypatch.setattr(graph.Graph, "add", changed)


def padding_traced_at_even_sides(monkeypatch):
    sliding = graph._sliding
    monkeypatch.setattr(graph, "_sliding", lambda k, e, op, sides: sliding(k, e, op, (64, 64)))


def average_that_counts_padding(monkeypatch):
    _with_nodes(monkeypatch, "AveragePool", lambda how: how | {"count_include_pad": 1})


def kernels_in_another_order(monkeypatch):
    """Height and width exchanged."""
    stored = layout.Place.stored
    monkeypatch.setattr(
        layout.Place,
        "stored",
        lambda self, value: stored(self, value.swapaxes(0, 1) if value.ndim == 4 else value),
    )


def erf_in_place_of_tanh(monkeypatch):
    _with_nodes(monkeypatch, "Gelu", lambda how: how | {"approximate": "none"})


def gains_that_are_missing(monkeypatch):
    _with_params(monkeypatch, lambda name, v: np.ones_like(v) if name.endswith(".gain") else v)


def beta_before_the_activation(monkeypatch):
    _with_plan(monkeypatch, p.Activation, lambda op: replace(op, beta_at="before"))


def transposed_classifier(monkeypatch):
    _with_params(monkeypatch, lambda name, v: v.T.copy() if name == "head.fc.kernel" else v)


def mean_over_the_traced_size(monkeypatch):
    """The sum over height and width, divided by the number of pixels that was traced."""
    add = graph.Graph.add

    def changed(self, node, name, *inputs, **attributes):
        if node != "GlobalAveragePool" or name != "pool.mean":
            return add(self, node, name, *inputs, **attributes)
        axes = self.constant(f"{name}.axes", [2, 3], "int64")
        total = add(self, "ReduceSum", f"{name}.sum", inputs[0], axes)
        return add(self, "Mul", name, total, self.constant(f"{name}.n", 1 / 16))

    monkeypatch.setattr(graph.Graph, "add", changed)


def constants_in_float16(monkeypatch):
    narrow = format_onnx.narrow
    monkeypatch.setattr(format_onnx, "narrow", lambda v, dtype: narrow(v.astype(np.float16), dtype))


def batch_baked_in(monkeypatch):
    def changed(made):
        return Network(made.plan, made.params, replace(made.settings, batch=1))

    _writing(monkeypatch, changed)


FAULTS = (
    padding_traced_at_even_sides,
    average_that_counts_padding,
    kernels_in_another_order,
    erf_in_place_of_tanh,
    gains_that_are_missing,
    beta_before_the_activation,
    transposed_classifier,
    mean_over_the_traced_size,
    constants_in_float16,
    batch_baked_in,
)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_mistake_of_an_exporter_is_refused(fault, network, tmp_path, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(nfspec.ProofError) as refused:
        exported(network, tmp_path)
    assert not refused.value.proof.same
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("alone")
def test_a_file_that_is_refused_is_kept_under_another_name(network, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_text("older")
    erf_in_place_of_tanh(monkeypatch)
    with pytest.raises(nfspec.ProofError, match=r"a\.failed\.onnx"):
        exported(network, tmp_path, keep=True, force=True)
    assert {file.name for file in tmp_path.iterdir()} == {"a.onnx", "a.failed.onnx"}
    assert (tmp_path / "a.onnx").read_text() == "older"
    assert onnx.load(tmp_path / "a.failed.onnx").graph.node


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"layout": "hwcn"}, "layout: expected one of"),
        ({"dtype": "f8"}, "dtype: expected one of"),
        ({"outputs": ()}, "outputs: expected names of taps"),
        ({"outputs": ("logit",)}, 'did you mean "logits"'),
        ({"size": 32}, "size: expected height and width"),
        ({"size": (0, 3)}, "size: expected a whole number of px"),
        ({"batch": True}, "batch: expected a whole number"),
        ({"preprocess": 1}, "preprocess: expected True or False"),
    ],
)
def test_choices_that_are_not_possible(choices, message, network, tmp_path):
    with pytest.raises(InputError, match=message):
        exported(network, tmp_path, **choices)
    assert not list(tmp_path.iterdir())


def changed_metadata(path, **others):
    model = onnx.load(path)
    said = {each.key: each.value for each in model.metadata_props} | others
    onnx.helper.set_model_props(model, said)
    onnx.save(model, path)


@pytest.mark.usefixtures("alone")
def test_a_file_that_was_damaged_or_is_of_others(network, tmp_path):
    path = tmp_path / "a.onnx"
    exported(network, tmp_path, size=(32, 33), batch=1)
    whole = path.read_bytes()
    spec = json.loads(format_onnx.read(path).network.metadata()["spec"])
    changed_metadata(path, spec=json.dumps(spec | {"head": spec["head"] | {"classes": 7}}))
    with pytest.raises(InputError, match="not that of spec_digest"):
        nfspec.verify(path)
    changed_metadata(path, spec="[]")
    with pytest.raises(InputError, match="metadata cannot be read"):
        nfspec.verify(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not an ONNX file that can be read"):
        nfspec.verify(path)
    model = onnx.load_from_string(whole)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match="no metadata of nfspec"):
        nfspec.verify(path)
    model = onnx.load_from_string(whole)
    del model.graph.initializer[-1]
    onnx.save(model, path)
    with pytest.raises(InputError):
        nfspec.verify(path)


@pytest.mark.usefixtures("alone")
def test_a_graph_that_was_changed_later_is_seen(network, tmp_path):
    path = tmp_path / "a.onnx"
    exported(network, tmp_path, size=(32, 33), batch=1)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "Gelu").op_type = "Relu"
    del next(node for node in model.graph.node if node.op_type == "Relu").attribute[:]
    onnx.save(model, path)
    assert not nfspec.verify(path).same


def test_settings_are_the_ones_of_metadata(network):
    made = Network(*network, settings.Settings(size=(32, 40), outputs=("pool",), license="MIT"))
    back = settings.network_of(made.metadata(), "a")
    assert back.settings == made.settings and back.plan.digest == made.plan.digest
