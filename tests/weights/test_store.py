import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import nfspec
from nfspec.weights import DigestWarning, NoClassifier, load, save, to_timm


def test_round_trip_of_every_bit(tmp_path, plan, params, same_bits):
    params["stem.conv0.bias"][:3] = [np.nan, -0.0, np.inf]
    save(tmp_path / "w.safetensors", plan, params)
    same_bits(load(tmp_path / "w.safetensors", plan), params)


def test_strided_arrays_and_any_order_are_saved_right(tmp_path, plan, params, same_bits):
    odd = {name: np.asarray(array, order="F") for name, array in reversed(params.items())}
    odd["head.fc.kernel"] = np.repeat(params["head.fc.kernel"], 2, axis=0)[::2]
    assert not odd["stem.conv0.kernel"].flags.c_contiguous
    save(tmp_path / "w.safetensors", plan, odd)
    same_bits(load(str(tmp_path / "w.safetensors"), plan), params)


def test_the_file_says_what_it_is_for(tmp_path, plan, params):
    save(tmp_path / "w.safetensors", plan, params)
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        assert file.metadata() == {
            "format": "nfspec/1",
            "name": "nfnet-tiny",
            "digest": plan.digest,
            "spec": plan.canonical,
        }


def test_loaded_arrays_can_be_written_to_and_leave_the_file(tmp_path, plan, params, same_bits):
    path = tmp_path / "w.safetensors"
    save(path, plan, params)
    for array in load(path, plan).values():
        array += 1
    same_bits(load(path, plan), params)


def test_tensors_of_frameworks_are_saved(tmp_path, plan, params, same_bits):
    tensors = {name: torch.tensor(value) for name, value in params.items()}
    save(tmp_path / "w.safetensors", plan, tensors)
    same_bits(load(tmp_path / "w.safetensors", plan), params)


def test_narrow_tensors_are_not_saved(tmp_path, plan, params, complaint):
    narrow = params | {"head.fc.bias": torch.zeros(10, dtype=torch.bfloat16)}
    assert complaint(save, tmp_path / "w.safetensors", plan, narrow) == (
        "1 tensor does not fit nfnet-tiny:\n  head.fc.bias: bfloat16, expected float32"
    )
    assert list(tmp_path.iterdir()) == []


def test_wrong_weights_are_not_saved(tmp_path, plan, params, complaint):
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    del params["head.fc.bias"]
    assert complaint(save, path, plan, params) == (
        "1 tensor does not fit nfnet-tiny:\n  head.fc.bias: missing, expected shape (10,)"
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_safetensors_of_canonical_names_load_in_silence(tmp_path, plan, params, same_bits):
    save_file(params, tmp_path / "w.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_bits(load(tmp_path / "w.safetensors", plan), params)


def test_own_shapes_are_taken_where_they_are_asked_for(tmp_path, plan, params, same_bits):
    """No warning either of a spec that has other classes or channels alone; of any other field,
    there is."""
    body = {name: value for name, value in params.items() if not name.startswith("head.")}
    others = [("head", "classes", 77), ("input", "channels", 1)]
    others += [("input", "mean", [0.5]), ("input", "std", [0.5])]
    save(tmp_path / "w.safetensors", _changed(plan, *others), params)
    same_bits(load(tmp_path / "w.safetensors", plan, own_shapes=True), params)
    for change in (("ws", "eps", 1e-5), ("input", "mean", [0.5])):
        save(tmp_path / "w.safetensors", _changed(plan, change), params)
        with pytest.warns(DigestWarning, match=rf"{change[0]}\.{change[1]}"):
            same_bits(load(tmp_path / "w.safetensors", plan, own_shapes=True), params)
    other = params | {"head.fc.kernel": np.zeros((96, 3), np.float32)}
    other |= {"head.fc.bias": np.zeros(3, np.float32)}
    other |= {"stem.conv0.kernel": np.zeros((3, 3, 7, 16), np.float32)}
    save_file(other, tmp_path / "w.safetensors")
    same_bits(load(tmp_path / "w.safetensors", plan, own_shapes=True), other)
    with pytest.raises(nfspec.WeightError, match=r"3 tensors do not fit (.|\n)*nfspec.weights.fit"):
        load(tmp_path / "w.safetensors", plan)
    save_file(body, tmp_path / "w.safetensors")
    same_bits(load(tmp_path / "w.safetensors", plan, own_shapes=True), body)
    with pytest.raises(NoClassifier, match="has no classifier"):
        load(tmp_path / "w.safetensors", plan)


def _warning(path, plan):
    with pytest.warns(DigestWarning) as caught:
        load(path, plan)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return str(caught[0].message).replace(f"{path.parent}/", "")


def _changed(plan, *changes):
    """The plan with fields of its canonical form set, as another spec would have them."""
    fields = json.loads(plan.canonical)
    for table, key, value in changes:
        fields[table][key] = value
    return replace(plan, canonical=json.dumps(fields), digest="0" * 64)


def test_weights_of_another_spec_name_the_fields(tmp_path, plan, params):
    other = _changed(plan, ("ws", "eps", 1e-5), ("stages", "alpha", [0.2, 0.2, 0.2, 0.3]))
    save(tmp_path / "w.safetensors", other, params)
    assert _warning(tmp_path / "w.safetensors", plan) == (
        "w.safetensors: fits nfnet-tiny in shape, but was saved for another spec:\n"
        "  stages.alpha: [0.2, 0.2, 0.2, 0.3] in the file, [0.2, 0.2, 0.2, 0.2] here\n"
        "  ws.eps: 1e-05 in the file, 0.0001 here"
    )


def test_ten_fields_and_how_many_more(tmp_path, plan, params):
    input_ = [("input", key, 77) for key in json.loads(plan.canonical)["input"]]
    drop = [("stochastic_depth", key, 77) for key in ("rate", "schedule", "rescale")]
    news = [("ws", "new\x1b", "x" * 99)]
    save(tmp_path / "w.safetensors", _changed(plan, *input_, *drop, *news), params)
    lines = _warning(tmp_path / "w.safetensors", plan).split("\n")
    assert len(lines) == 1 + 10 + 1
    assert lines[1] == "  input.channels: 77 in the file, 3 here"
    assert lines[-1] == "  and 2 more"


def test_fields_that_only_one_of_them_has(tmp_path, plan, params):
    save(tmp_path / "w.safetensors", _changed(plan, ("ws", "new\x1b", "x" * 99)), params)
    assert _warning(tmp_path / "w.safetensors", plan).split("\n")[1:] == [
        f'  ws.new\\x1b: "{"x" * 56}... in the file, nothing here'
    ]


@pytest.mark.parametrize("spec", ["", "{", "[1]", "{}", "[" * 100_000, '{"a":' * 100_000])
def test_metadata_that_is_no_spec(tmp_path, plan, params, spec):
    save(tmp_path / "w.safetensors", replace(plan, canonical=spec, digest="0" * 64), params)
    assert _warning(tmp_path / "w.safetensors", plan) == (
        "w.safetensors: fits nfnet-tiny in shape, but was saved for another spec:\n"
        "  the file does not say which"
    )


def test_real_specs_of_the_same_shapes(tmp_path):
    plans = [nfspec.resolve(nfspec.load(name)) for name in ("nf-resnet-50", "timm/nf_resnet50")]
    same = replace(plans[1], canonical=plans[0].canonical, digest=plans[0].digest)
    zeros = {name: np.zeros(p.shape, np.float32) for name, p in same.parameters.items()}
    save(tmp_path / "w.safetensors", same, zeros)
    text = _warning(tmp_path / "w.safetensors", plans[1])
    assert '  activation.gamma_at: "activation" in the file, "weight" here\n' in text


def _text(path, plan, params):
    path.write_text("stem.conv0.kernel = [[0.1, 0.2]]\n" * 20)


def _empty(path, plan, params):
    path.touch()


def _short(path, plan, params):
    path.write_bytes(b"abc")


def _missing(path, plan, params):
    pass


def _folder(path, plan, params):
    path.mkdir()


def _cut(keep):
    def make(path, plan, params):
        save(path, plan, params)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return make


def _longer(path, plan, params):
    save(path, plan, params)
    path.write_bytes(path.read_bytes() + b"more")


def _huge(path, plan, params):
    size = 2**40
    tensor = {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}
    header = json.dumps({"head.fc.bias": tensor}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def _zip(path, plan, params):
    with path.open("wb") as file:
        np.savez(file, **params)


def _pickle(path, plan, params):
    nfspec.weights.to_deepmind(path, plan, params)


def _timm(path, plan, params):
    save_file(to_timm(plan, params), path)


def _bfloat16(path, plan, params):
    tensors = {name: torch.from_numpy(array) for name, array in params.items()}
    tensors["head.fc.bias"] = tensors["head.fc.bias"].bfloat16()
    safetensors.torch.save_file(tensors, path)


def _wrong(path, plan, params):
    params["stem.conv0.gain"] = params["stem.conv0.gain"][:5]
    params["stem.conv0.bias"] = params["stem.conv0.bias"].astype(np.float64)
    params["stem.conv0.kernels"] = params.pop("stem.conv0.kernel")
    save_file(params, path)


DAMAGED = "a safetensors file that is damaged or cut short; download or save it again"
BAD = [
    (_text, "not a safetensors file"),
    (_empty, "an empty file"),
    (_short, "not a safetensors file"),
    (_missing, "cannot be read: No such file or directory"),
    (_folder, "cannot be read: a folder, where a regular file was expected"),
    (_cut(0.01), DAMAGED),
    (_cut(0.5), DAMAGED),
    (_cut(0.999), DAMAGED),
    (_longer, DAMAGED),
    (_huge, DAMAGED),
    (
        _zip,
        "not a safetensors file but a zip archive; "
        "for a .pth of timm's use nfspec.weights.from_timm",
    ),
    (
        _pickle,
        "not a safetensors file but a pickle; "
        "for DeepMind's files use nfspec.weights.from_deepmind",
    ),
    (_timm, "looks like a timm state dict; use nfspec.weights.from_timm"),
    (
        _bfloat16,
        "1 tensor does not fit nfnet-tiny:\n  head.fc.bias: bfloat16, expected float32",
    ),
    (
        _wrong,
        "4 tensors do not fit nfnet-tiny:\n"
        "  stem.conv0.kernel: missing, expected shape (3, 3, 3, 16)\n"
        "  stem.conv0.gain: shape (5,), expected (16,)\n"
        "  stem.conv0.bias: float64, expected float32\n"
        "  stem.conv0.kernels: not in this network, found shape (3, 3, 3, 16); "
        'did you mean "stem.conv0.kernel"?',
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_files(tmp_path, plan, params, complaint, make, message):
    make(tmp_path / "w.safetensors", plan, params)
    assert complaint(load, tmp_path / "w.safetensors", plan) == f"w.safetensors: {message}"


def test_weights_in_place_of_the_plan_are_said_to_be_so(tmp_path):
    with pytest.raises(nfspec.InputError, match=r"plan: expected what nfspec\.resolve returns"):
        nfspec.weights.save(tmp_path / "w.safetensors", {}, {})
