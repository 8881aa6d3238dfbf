import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

import nfspec
from nfspec.language.overrides import given
from nfspec.weights import from_timm, load, save, to_timm, to_timm_file
from nfspec.weights.timm import names, timm_shapes

from standin import timm

VARIANTS = [name for name in nfspec.variants() if name.startswith("timm/")]
SMALL = ["test_nfnet", "nf_regnet_b1", "nf_ecaresnet26"]


def plan_of(name):
    return nfspec.resolve(nfspec.load(f"timm/{name}"))


def narrowed(variant):
    """A network of the same operations with few channels."""
    spec = nfspec.load(variant)
    groups = spec.stages.column("group_width")
    values = {
        ("stem", "width"): (8,) * len(spec.stem.width),
        ("stages", "width"): (32,) * spec.stages.count,
        ("stages", "group_width"): tuple("none" if g == "none" else 8 for g in groups),
        ("head", "classes"): 10,
    }
    return nfspec.resolve(nfspec.load(variant, [given("a test", values)]))


def timms(name):
    """A state dict of timm's with random values in every tensor, the zero ones too."""
    state = timm.create_model(name).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(value.shape, generator=generator) for key, value in state.items()}


@pytest.fixture
def small():
    """The smallest of timm's networks, and random weights for it as timm has them."""
    return plan_of("test_nfnet"), timms("test_nfnet")


def same_tensors(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        array = tensor.numpy()
        assert actual[name].shape == array.shape, name
        assert actual[name].dtype == np.float32, name
        assert actual[name].tobytes() == array.tobytes(), name


def test_all_of_timms_networks_are_here():
    theirs = timm.list_models(["*nfnet*", "nf_regnet*", "nf_*resnet*"])
    assert {name.removeprefix("timm/") for name in VARIANTS} == set(theirs)
    assert len(VARIANTS) == 36


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_shapes_and_count_are_timms(variant):
    with torch.device("meta"):
        model = timm.create_model(variant.removeprefix("timm/"))
    plan = nfspec.resolve(nfspec.load(variant))
    assert timm_shapes(plan) == {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert len(timm_shapes(plan)) == len(plan.parameters)
    assert nfspec.count(plan).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_round_trip_of_every_bit(name, tmp_path, same_bits):
    plan, state = plan_of(name), timms(name)
    params = from_timm(state, plan)
    same_tensors(to_timm(plan, params), state)
    save(tmp_path / "w.safetensors", plan, params)
    same_bits(load(tmp_path / "w.safetensors", plan), params)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_bit_of_every_network_comes_back(variant):
    """Any bits at all, not-a-numbers among them, in narrow layers: names do not depend on width."""
    plan, rng = narrowed(variant), np.random.default_rng(0)
    bits = {n: rng.integers(0, 2**32, s, np.uint32) for n, s in timm_shapes(plan).items()}
    state = {name: np.asarray(value).view(np.float32) for name, value in bits.items()}
    again = to_timm(plan, from_timm(state, plan))
    assert list(again) == list(state)
    assert all(np.array_equal(again[name].view(np.uint32), bits[name]) for name in bits)


def test_arrays_are_in_their_places_and_layouts(small):
    plan, state = small
    params = from_timm(state, plan)
    pairs = {
        "stem.conv2.kernel": state["stem.conv3.weight"].permute(2, 3, 1, 0),
        "stem.conv2.gain": state["stem.conv3.gain"][:, 0, 0, 0],
        "stages.1.blocks.0.conv0.bias": state["stages.1.0.conv1.bias"],
        "stages.1.blocks.0.conv1.kernel": state["stages.1.0.conv2.weight"].permute(2, 3, 1, 0),
        "stages.1.blocks.0.conv1b.bias": state["stages.1.0.conv2b.bias"],
        "stages.1.blocks.0.conv2.bias": state["stages.1.0.conv3.bias"],
        "stages.1.blocks.0.conv_shortcut.bias": state["stages.1.0.downsample.conv.bias"],
        "stages.1.blocks.0.se.fc0.kernel": state["stages.1.0.attn_last.fc1.weight"][:, :, 0, 0].T,
        "stages.1.blocks.0.se.fc1.bias": state["stages.1.0.attn_last.fc2.bias"],
        "head.fc.kernel": state["head.fc.weight"].T,
    }
    for name, tensor in pairs.items():
        np.testing.assert_array_equal(params[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize(
    ("variant", "name", "theirs"),
    [
        ("nf_regnet_b1", "stem.conv0.gain", "stem.conv.gain"),
        ("nf_regnet_b1", "stages.0.blocks.1.se.fc1.kernel", "stages.0.1.attn.fc2.weight"),
        ("nf_seresnet26", "stages.0.blocks.1.se.fc1.kernel", "stages.0.1.attn_last.fc2.weight"),
        ("nf_ecaresnet26", "stages.3.blocks.0.eca.kernel", "stages.3.0.attn_last.conv.weight"),
        ("dm_nfnet_f0", "stages.0.blocks.0.skip_gain", "stages.0.0.skipinit_gain"),
    ],
)
def test_names_one_by_one(variant, name, theirs):
    assert names(plan_of(variant))[name] == theirs


def test_the_attentions_place_is_read_off_the_wiring(tmp_path):
    (tmp_path / "x.toml").write_text(
        'schema = "nfspec/1"\nname = "x"\nsource = "own"\nextends = "timm/nf_ecaresnet26"\n'
        '[attention]\nposition = "mid"\n'
    )
    plan = nfspec.resolve(nfspec.load(tmp_path / "x.toml"))
    assert names(plan)["stages.3.blocks.0.eca.kernel"] == "stages.3.0.attn.conv.weight"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state},
        lambda state: {"state_dict": {}, "state_dict_ema": state},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {k: v.numpy() for k, v in state.items()},
        lambda state: {k: torch.nn.Parameter(v) for k, v in state.items()},
        lambda state: {k: v.double() for k, v in state.items()},
    ],
)
def test_checkpoints_are_unwrapped(tmp_path, small, wrap, same_bits):
    plan, state = small
    expected = from_timm(state, plan)
    same_bits(from_timm(wrap(state), plan), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(small, dtype):
    plan, state = small
    halves = {name: tensor.to(dtype) for name, tensor in state.items()}
    same_tensors(to_timm(plan, from_timm(halves, plan)), {k: v.float() for k, v in halves.items()})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_files(tmp_path, small, suffix, zipped, same_bits):
    plan, state = small
    path = tmp_path / f"w{suffix}"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    same_bits(from_timm(path, plan), from_timm(state, plan))
    same_bits(from_timm(str(path), plan), from_timm(state, plan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_safetensors_files(tmp_path, small, dtype, same_bits):
    plan, state = small
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    same_bits(from_timm(tmp_path / "w.safetensors", plan), from_timm(state, plan))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_timm_loads_what_is_written(tmp_path, small, suffix):
    plan, state = small
    path = tmp_path / f"w{suffix}"
    to_timm_file(path, plan, from_timm(state, plan))
    model = timm.create_model("test_nfnet", checkpoint_path=str(path))
    same_tensors({k: v.numpy() for k, v in model.state_dict().items()}, state)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_shares_memory(small):
    plan, state = small
    params = from_timm(state, plan)
    assert not np.shares_memory(params["head.fc.bias"], state["head.fc.bias"].numpy())
    again = to_timm(plan, params)
    assert not np.shares_memory(again["head.fc.bias"], params["head.fc.bias"])
    assert all(array.flags.c_contiguous for array in (*params.values(), *again.values()))


ONE = "1 tensor does not fit timm/test_nfnet:\n  head.fc"
BAD = {
    "missing": ({"head.fc.bias": None}, f"{ONE}.bias: missing, expected shape (1000,)"),
    "misshapen": (
        {"head.fc.bias": torch.zeros(10)},
        f"{ONE}.bias: shape (10,), expected (1000,)",
    ),
    "transposed": (
        {"head.fc.weight": torch.zeros(192, 1000)},
        f"{ONE}.weight: shape (192, 1000), expected (1000, 192)",
    ),
    "extra": ({"head.fc.x": torch.zeros(2)}, f"{ONE}.x: not in this network, found shape (2,)"),
    "misspelt": (
        {"head.fc.bias": None, "head.fc.biass": torch.zeros(1000)},
        "2 tensors do not fit timm/test_nfnet:\n"
        "  head.fc.bias: missing, expected shape (1000,)\n"
        "  head.fc.biass: not in this network, found shape (1000,); "
        'did you mean "head.fc.bias"?',
    ),
    "integers": (
        {"head.fc.bias": torch.zeros(1000, dtype=torch.int32)},
        f"{ONE}.bias: int32, expected float32",
    ),
    "inexact": (
        {"head.fc.bias": torch.full((1000,), 0.1, dtype=torch.float64)},
        f"{ONE}.bias: float64 that float32 cannot hold, such as 0.1",
    ),
    "no tensor": ({"head.fc.bias": "text"}, f"{ONE}.bias: str, expected a tensor"),
    "gain of DeepMind's shape": (
        {"final_conv.gain": torch.zeros(192)},
        "1 tensor does not fit timm/test_nfnet:\n"
        "  final_conv.gain: shape (192,), expected (192, 1, 1, 1)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_state_dicts_and_files_of_them(tmp_path, small, complaint, changes, message):
    plan, state = small
    bad = {name: value for name, value in (state | changes).items() if value is not None}
    assert complaint(from_timm, bad, plan) == message
    torch.save({"state_dict": bad, "epoch": 1}, tmp_path / "w.pth")
    assert complaint(from_timm, tmp_path / "w.pth", plan) == f"w.pth: {message}"


def test_bad_tensors_in_safetensors(tmp_path, small, complaint):
    plan, state = small
    state["head.fc.bias"] = state["head.fc.bias"].to(torch.float8_e4m3fn)
    del state["head.fc.weight"]
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert complaint(from_timm, tmp_path / "w.safetensors", plan) == (
        "w.safetensors: 2 tensors do not fit timm/test_nfnet:\n"
        "  head.fc.weight: missing, expected shape (1000, 192)\n"
        "  head.fc.bias: F8_E4M3, expected float32"
    )


class Call:
    def __reduce__(self):
        return os.system, ("touch ran",)


def _module(path):
    torch.save({"state_dict": torch.nn.Linear(2, 2)}, path)


def _calling(path):
    torch.save({"state_dict": {"head.fc.bias": Call()}}, path)


def _cut(path):
    torch.save(timms("test_nfnet"), path)
    path.write_bytes(path.read_bytes()[:5000])


def _cut_legacy(path):
    torch.save(timms("test_nfnet"), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5000])


NOT_TENSORS = "not a torch file of tensors only, or damaged or cut short"
FILES = {
    "text": (lambda path: path.write_text("head.fc.bias = 0\n"), NOT_TENSORS),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Call())), NOT_TENSORS),
    "a module": (_module, NOT_TENSORS),
    "a call": (_calling, NOT_TENSORS),
    "cut": (_cut, NOT_TENSORS),
    "cut, of torch's older kind": (_cut_legacy, NOT_TENSORS),
    "empty": (lambda path: path.touch(), "an empty file"),
    "folder": (
        lambda path: path.mkdir(),
        "cannot be read: a folder, where a regular file was expected",
    ),
    "missing": (lambda path: None, "cannot be read: No such file or directory"),
    "a tensor": (
        lambda path: torch.save(torch.ones(2), path),
        "expected a state dict, found Tensor",
    ),
    "a list": (lambda path: torch.save([1], path), "expected a state dict, found list"),
}


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_bad_torch_files(tmp_path, complaint, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "w.pth")
    assert complaint(from_timm, tmp_path / "w.pth", plan_of("test_nfnet")) == f"w.pth: {message}"
    assert not (tmp_path / "ran").exists()


def test_nfspecs_own_files_are_recognised(tmp_path, small, complaint):
    plan, state = small
    save(tmp_path / "w.safetensors", plan, from_timm(state, plan))
    assert complaint(from_timm, tmp_path / "w.safetensors", plan) == (
        "w.safetensors: looks like nfspec's own weights; use nfspec.weights.load"
    )


@pytest.mark.parametrize("name", ["w.npz", "w"])
def test_other_suffixes(tmp_path, small, complaint, name):
    plan, state = small
    message = f"{name}: expected a file that ends in .safetensors, .pth, .pt, .tar, .bin, .ckpt"
    assert complaint(from_timm, tmp_path / name, plan) == message
    assert complaint(to_timm_file, tmp_path / name, plan, from_timm(state, plan)) == message


def test_what_is_neither_path_nor_state_dict(complaint):
    assert complaint(from_timm, torch.nn.ReLU(), plan_of("test_nfnet")) == (
        "expected a state dict, found ReLU"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_wrong_weights_are_not_saved(tmp_path, small, complaint, suffix):
    plan, state = small
    path = tmp_path / f"w{suffix}"
    path.write_text("old")
    params = from_timm(state, plan)
    params["head.fc.bias"] = params["head.fc.bias"][:9]
    assert complaint(to_timm_file, path, plan, params) == (
        "1 tensor does not fit timm/test_nfnet:\n  head.fc.bias: shape (9,), expected (1000,)"
    )
    assert path.read_text() == "old"


def test_without_torch(tmp_path, small, monkeypatch, same_bits):
    plan, state = small
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    monkeypatch.setitem(sys.modules, "torch", None)
    message = "torch files need PyTorch, which is not installed; run: pip install torch"
    params = from_timm(arrays, plan)
    with pytest.raises(nfspec.BackendError) as caught:
        to_timm_file(tmp_path / "w.pth", plan, params)
    assert str(caught.value) == message
    with pytest.raises(nfspec.BackendError) as caught:
        from_timm(tmp_path / "w.pth", plan)
    assert str(caught.value) == message
    to_timm_file(tmp_path / "w.safetensors", plan, params)
    same_bits(from_timm(tmp_path / "w.safetensors", plan), params)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def saved_by_torch(path, state, **how):
    torch.save(state, path, **how)
    return path


def nested_pickle(kind):
    """A tuple or frozenset that holds another twice, and so on forty times, as a dict's key."""
    body = b"\x80\x04}K\x01"  # an empty dict, then what is nested
    for _ in range(40):
        body += b"\x94" + (b"h\x00h\x00\x86" if kind == "tuple" else b"0(h\x00K\x02\x91")
    return body + b"K\x01s."


@pytest.mark.parametrize("kind", ["tuple", "frozenset"])
def test_keys_without_an_end_are_refused_before_they_are_hashed(kind, tmp_path):
    plan = plan_of("test_nfnet")
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", nested_pickle(kind))
        archive.writestr("x/version", "3\n")
    with pytest.raises(nfspec.WeightError, match="not a torch file of tensors only"):
        from_timm(path, plan)


def test_packed_records_are_refused(tmp_path):
    plan = plan_of("test_nfnet")
    path = saved_by_torch(tmp_path / "x.pth", {})
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(nfspec.WeightError, match="not a torch file of tensors only"):
        from_timm(packed, plan)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ws.ddof": [0, 0, 0, 1]}, "has another ws.ddof in some stages"),
        ({"ws.eps_rule": "none"}, 'has convs that are not standardised (ws.eps_rule = "none")'),
    ],
    ids=["a column", "none"],
)
def test_what_timm_cannot_express(tmp_path, complaint, changes, reason):
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet", changes))
    message = f"timm/test_nfnet {reason}; timm cannot express that: keep nfspec's format"
    assert complaint(to_timm_file, tmp_path / "w.safetensors", plan, {}) == message
    assert complaint(from_timm, {}, plan) == message
    assert list(tmp_path.iterdir()) == []
