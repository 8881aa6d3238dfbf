import os
import pickle
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import nfspec
from nfspec.weights import from_deepmind, load, save, to_deepmind
from nfspec.weights.deepmind import names

from golden import NETWORKS, golden


def original(network):
    """A golden network's parameters as the original code has them, {module: {name: array}}."""
    tree = {}
    for key, array in golden(network).figures.items():
        if key.startswith("param/"):
            module, name = key.removeprefix("param/").split("|")
            tree.setdefault(module, {})[name] = array
    return tree


def same_trees(actual, expected):
    assert actual.keys() == expected.keys()
    for module, arrays in expected.items():
        assert actual[module].keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(actual[module][name], array, strict=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_names_and_shapes_are_all_of_the_originals(network):
    plan = golden(network).plan
    places = names(plan)
    shapes = {places[name]: parameter.shape for name, parameter in plan.parameters.items()}
    assert len(shapes) == len(plan.parameters)
    assert shapes == {
        (module, name): array.shape
        for module, arrays in original(network).items()
        for name, array in arrays.items()
    }


@pytest.mark.parametrize(
    ("network", "name", "module", "leaf"),
    [
        ("nfnet_tiny", "stem.conv3.gain", "NFNet/~/stem_conv3", "gain"),
        ("nfnet_tiny", "stages.0.blocks.0.skip_gain", "NFNet/~/nf_block", "skip_gain"),
        ("nfnet_tiny", "stages.3.blocks.0.conv1b.kernel", "NFNet/~/nf_block_5/~/conv1b", "w"),
        (
            "nfnet_tiny",
            "stages.2.blocks.1.se.fc1.bias",
            "NFNet/~/nf_block_4/~/squeeze_excite/~/linear_1",
            "b",
        ),
        ("nfnet_tiny", "final_conv.bias", "NFNet/~/final_conv", "bias"),
        ("nfnet_tiny", "head.fc.bias", "NFNet/~/linear", "b"),
        ("nf_regnet_tiny", "stem.conv0.kernel", "NF_RegNet/~/initial_conv", "w"),
        ("nf_regnet_tiny", "stages.1.blocks.0.skip_gain", "NF_RegNet/~/nf_block_1", "skip_gain"),
        (
            "nf_resnet_tiny",
            "stages.1.blocks.0.conv_shortcut.gain",
            "NF_ResNet/~/nf_res_block_2/~/conv_shortcut",
            "gain",
        ),
    ],
)
def test_names_one_by_one(network, name, module, leaf):
    assert names(golden(network).plan)[name] == (module, leaf)


@pytest.mark.parametrize("network", NETWORKS)
def test_round_trip_of_the_originals_parameters(tmp_path, network, same_bits):
    plan = golden(network).plan
    tree = original(network)
    params = from_deepmind(tree, plan)
    to_deepmind(tmp_path / "w.npz", plan, params)
    with (tmp_path / "w.npz").open("rb") as file:
        same_trees(pickle.load(file), tree)
    same_bits(from_deepmind(tmp_path / "w.npz", plan), params)
    same_bits(from_deepmind(str(tmp_path / "w.npz"), plan), params)
    save(tmp_path / "w.safetensors", plan, params)
    same_bits(load(tmp_path / "w.safetensors", plan), params)


def test_arrays_are_in_their_places():
    tree = original("nfnet_tiny")
    actual = from_deepmind(tree, golden("nfnet_tiny").plan)
    block = "NFNet/~/nf_block_1"
    pairs = {
        "stages.1.blocks.0.conv1.kernel": tree[f"{block}/~/conv1"]["w"],
        "stages.1.blocks.0.se.fc0.kernel": tree[f"{block}/~/squeeze_excite/~/linear"]["w"],
        "stages.1.blocks.0.skip_gain": tree[block]["skip_gain"],
        "head.fc.kernel": tree["NFNet/~/linear"]["w"],
    }
    for name, array in pairs.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


def test_f0_has_the_modules_of_the_published_file():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    assert len({module for module, _ in names(plan).values()}) == 94


@pytest.mark.parametrize("convert", [lambda a: jnp.asarray(a), lambda a: a.astype(np.float64)])
def test_other_arrays_are_converted(convert, same_bits):
    plan, tree = golden("nfnet_tiny").plan, original("nfnet_tiny")
    other = {m: {k: convert(v) for k, v in arrays.items()} for m, arrays in tree.items()}
    same_bits(from_deepmind(other, plan), from_deepmind(tree, plan))


def test_weights_share_no_memory_with_their_source():
    plan, tree = golden("nfnet_tiny").plan, original("nfnet_tiny")
    actual = from_deepmind(tree, plan)
    assert not np.shares_memory(actual["head.fc.kernel"], tree["NFNet/~/linear"]["w"])
    assert all(array.flags.writeable for array in actual.values())


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("timm/nfnet_l0", "timm/nfnet_l0 has no skip gains"),
        ("timm/eca_nfnet_l0", "timm/eca_nfnet_l0 has ECA and has no skip gains"),
    ],
)
def test_what_the_original_cannot_express(tmp_path, complaint, variant, reason):
    plan = nfspec.resolve(nfspec.load(variant))
    message = f"{reason}; DeepMind's code cannot express that"
    assert complaint(to_deepmind, tmp_path / "w.npz", plan, {}) == message
    assert complaint(from_deepmind, {}, plan) == message
    assert list(tmp_path.iterdir()) == []


def test_weight_standardisation_by_stage_cannot_be_expressed(complaint):
    plan = nfspec.resolve(nfspec.load("nfnet-f0", {"ws.eps": [1e-4, 1e-4, 1e-4, 1e-6]}))
    assert complaint(from_deepmind, {}, plan) == (
        "nfnet-f0 has another ws.eps in some stages; DeepMind's code cannot express that"
    )


def test_a_regnet_of_several_stem_convs_cannot_be_expressed(complaint):
    plan = replace(golden("nfnet_tiny").plan, family="nf_regnet")
    assert complaint(from_deepmind, {}, plan) == (
        "nfnet-tiny has 4 stem convs, where NF_RegNet has one; DeepMind's code cannot express that"
    )


def test_wrong_weights_are_not_saved(tmp_path, complaint):
    plan = golden("nfnet_tiny").plan
    params = from_deepmind(original("nfnet_tiny"), plan)
    del params["final_conv.gain"]
    assert complaint(to_deepmind, tmp_path / "w.npz", plan, params) == (
        "1 tensor does not fit nfnet-tiny:\n  final_conv.gain: missing, expected shape (96,)"
    )
    assert list(tmp_path.iterdir()) == []


def _tree(**changes):
    """The tiny NFNet's tree with other values in its last layer; None leaves one out."""
    tree = original("nfnet_tiny")
    linear = tree["NFNet/~/linear"] | changes
    tree["NFNet/~/linear"] = {k: v for k, v in linear.items() if v is not None}
    return tree


class Call:
    def __reduce__(self):
        return os.system, ("touch ran",)


ONE = "1 tensor does not fit nfnet-tiny:\n  NFNet/~/linear"
BAD = {
    "missing": (_tree(b=None), f"{ONE}/b: missing, expected shape (10,)"),
    "misshapen": (_tree(b=np.zeros(9, np.float32)), f"{ONE}/b: shape (9,), expected (10,)"),
    "transposed": (
        _tree(w=np.zeros((10, 96), np.float32)),
        f"{ONE}/w: shape (10, 96), expected (96, 10)",
    ),
    "extra": (_tree(c=np.zeros(2)), f"{ONE}/c: not in this network, found shape (2,)"),
    "misspelt": (
        _tree(b=None, bb=np.zeros(10)),
        "2 tensors do not fit nfnet-tiny:\n"
        "  NFNet/~/linear/b: missing, expected shape (10,)\n"
        "  NFNet/~/linear/bb: not in this network, found shape (10,); "
        'did you mean "NFNet/~/linear/b"?',
    ),
    "integers": (_tree(b=np.zeros(10, int)), f"{ONE}/b: int64, expected float32"),
    "inexact": (
        _tree(b=np.full(10, 0.1)),
        f"{ONE}/b: float64 that float32 cannot hold, such as 0.1",
    ),
    "a list": (_tree(b=[0.0] * 10), f"{ONE}/b: list, expected a tensor"),
    "a list of arrays": ([np.zeros(2)], "expected {module: {name: array}}, found list"),
    "flat": ({"a": 1}, "a: expected {name: array}, found int"),
}


@pytest.mark.parametrize(("tree", "message"), BAD.values(), ids=BAD)
def test_bad_trees_and_files_of_them(tmp_path, complaint, tree, message):
    plan = golden("nfnet_tiny").plan
    (tmp_path / "w.npz").write_bytes(pickle.dumps(tree))
    assert complaint(from_deepmind, tmp_path / "w.npz", plan) == f"w.npz: {message}"
    assert complaint(from_deepmind, tree, plan) == message


def test_bfloat16_is_widened():
    bias = jnp.linspace(-1, 1, 10).astype(jnp.bfloat16)
    actual = from_deepmind(_tree(b=bias), golden("nfnet_tiny").plan)
    np.testing.assert_array_equal(actual["head.fc.bias"], np.asarray(bias, np.float32), strict=True)


def test_weights_without_a_classifier_say_how_to_go_on(complaint, same_bits):
    plan, tree = golden("nfnet_tiny").plan, _tree(w=None, b=None)
    assert "has no classifier" in complaint(from_deepmind, tree, plan)
    whole = from_deepmind(_tree(), plan)
    body = {name: whole[name] for name in whole if not name.startswith("head.")}
    same_bits(from_deepmind(tree, plan, own_shapes=True), body)


def test_a_file_that_runs_something(tmp_path, complaint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.npz").write_bytes(pickle.dumps(_tree(b=Call())))
    assert complaint(from_deepmind, tmp_path / "w.npz", golden("nfnet_tiny").plan) == (
        f"w.npz: refused to run {os.name}.system; DeepMind's files hold arrays only"
    )
    assert not (tmp_path / "ran").exists()


def test_a_real_npz(tmp_path, complaint):
    with (tmp_path / "w.npz").open("wb") as file:
        np.savez(file, a=np.zeros(2))
    assert complaint(from_deepmind, tmp_path / "w.npz", golden("nfnet_tiny").plan) == (
        "w.npz: a zip archive, as numpy.savez writes; DeepMind's .npz files are pickles"
    )


def test_a_missing_file(tmp_path, complaint):
    assert complaint(from_deepmind, tmp_path / "w.npz", golden("nfnet_tiny").plan) == (
        "w.npz: cannot be read: No such file or directory"
    )


def test_another_network_of_the_same_family(complaint):
    lines = complaint(from_deepmind, original("nfnet_tiny_odd"), golden("nfnet_tiny").plan).split(
        "\n"
    )
    assert lines[1] == "  NFNet/~/stem_conv3/w: shape (3, 3, 64, 12), expected (3, 3, 64, 8)"


@pytest.mark.parametrize(
    "key", [10**4500, 1.5, None, ("a", "b")], ids=["long", "float", "none", "tuple"]
)
def test_names_that_are_no_text_are_refused(key, tmp_path):
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    for tree in ({key: {"w": np.zeros(1, np.float32)}}, {"stem": {key: np.zeros(1, np.float32)}}):
        path = tmp_path / "x.npz"
        path.write_bytes(pickle.dumps(tree))
        for source in (tree, path):
            with pytest.raises(nfspec.WeightError, match="names that are text"):
                nfspec.weights.from_deepmind(source, plan)
