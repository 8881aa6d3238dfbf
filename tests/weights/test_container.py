"""Safetensors files against the library that defines them."""

import os
import random
import resource

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import nfspec
from nfspec.weights import from_deepmind, from_timm, load, save, to_deepmind, to_timm_file
from nfspec.weights.container import contents, write
from nfspec.weights.store import read_all

RNG = np.random.default_rng(0)
ARRAYS = {
    "double": RNG.standard_normal((2, 3)),
    "float": RNG.standard_normal(5).astype(np.float32),
    "half": RNG.standard_normal((1, 2)).astype(np.float16),
    "scalar": np.array(3, np.int64),
    "none": np.zeros((0, 4), np.uint32),
    "bytes": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False, True]),
}
METADATA = {"b": "1", "a": "é\x1b\n", "c": ""}


def same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


def test_the_library_reads_what_is_written(tmp_path):
    write(tmp_path / "x", ARRAYS, METADATA)
    same(load_file(tmp_path / "x"), ARRAYS)
    with safe_open(tmp_path / "x", framework="numpy") as file:
        assert file.metadata() == METADATA


def test_what_the_library_writes_is_read(tmp_path):
    save_file(ARRAYS, tmp_path / "x", METADATA)
    actual, metadata = read_all(tmp_path / "x")
    same(actual, ARRAYS)
    assert metadata == METADATA


def test_bfloat16_is_read_as_float32(tmp_path):
    values = torch.tensor([1.5, -2.0, 1e-40, float("inf"), -0.0]).bfloat16()
    safetensors.torch.save_file({"x": values, "y": values[0].clone()}, tmp_path / "x")
    with contents(tmp_path / "x") as actual:
        assert actual.tensors["x"].dtype == "bfloat16"
        array = np.asarray(actual.tensors["x"])
        assert np.asarray(actual.tensors["y"]).shape == ()
    assert array.tobytes() == values.float().numpy().tobytes()


def test_equal_content_is_equal_bytes(tmp_path):
    write(tmp_path / "x", ARRAYS, METADATA)
    first = (tmp_path / "x").read_bytes()
    strided = {name: np.asfortranarray(a) if a.ndim else a for name, a in ARRAYS.items()}
    for arrays in (
        dict(reversed(strided.items())),
        {k: v.astype(v.dtype.newbyteorder(">")) for k, v in ARRAYS.items()},
    ):
        write(tmp_path / "x", arrays, dict(reversed(METADATA.items())))
        assert (tmp_path / "x").read_bytes() == first


def test_whatever_is_read_of_a_damaged_file_the_library_reads_too(tmp_path):
    """400 files with one to three bytes of the header changed."""
    write(tmp_path / "x", ARRAYS, {"a": "b"})
    whole, rng, taken = (tmp_path / "x").read_bytes(), random.Random(0), 0
    length = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(400):
        bad = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(length)] = rng.choice(b'0123456789[]{}",:abF \x00\xff')
        (tmp_path / "x").write_bytes(bad)
        try:
            actual, metadata = read_all(tmp_path / "x")
        except nfspec.WeightError:
            continue
        taken += 1
        same(actual, load_file(tmp_path / "x"))
        with safe_open(tmp_path / "x", framework="numpy") as file:
            assert metadata == (file.metadata() or {})
    assert taken > 10


def one(text, data=b"\x00" * 8):
    return len(text).to_bytes(8, "little") + text.encode() + data


ENTRY = '"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
BAD = {
    "twice": one(f"{{{ENTRY},{ENTRY}}}"),
    "gap": one('{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
    "overlap": one(f'{{{ENTRY},"y":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}'),
    "backwards": one('{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}'),
    "shape": one('{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'),
    "negative": one('{"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'),
    "bool": one('{"x":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}'),
    "dimensions": one(f'{{"x":{{"dtype":"F32","shape":[{"9" * 18 + ("," + "9" * 18) * 99999}]'
                      ',"data_offsets":[0,8]}}'),
    "long number": one(f'{{"x":{{"dtype":"F32","shape":[{"9" * 9999}],"data_offsets":[0,8]}}}}'),
    "nan": one('{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "metadata": one(f'{{"__metadata__":{{"a":1}},{ENTRY}}}'),
    "list of metadata": one(f'{{"__metadata__":["a"],{ENTRY}}}'),
    "list": one('{"x":[1]}'),
    "dtype": one('{"x":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}}'),
    "depth": one('{"x":' + "[" * 99999),
    "no header": one("{"),
    "utf-16": one("{\x00}\x00"),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_damaged_files_are_refused(tmp_path, complaint, data):
    (tmp_path / "x").write_bytes(data)
    assert complaint(read_all, tmp_path / "x") == (
        "x: a safetensors file that is damaged or cut short; download or save it again"
    )


def test_a_file_that_is_cut_while_it_is_read_is_a_sentence(tmp_path, plan, params, complaint):
    def read(path):
        with contents(path) as actual:
            os.truncate(path, path.stat().st_size - 4)
            return [np.asarray(tensor) for tensor in actual.tensors.values()]

    save(tmp_path / "x", plan, params)
    assert (
        complaint(read, tmp_path / "x") == "x: cannot be read: it became shorter while it was read"
    )


READERS = {
    "own": ("x.safetensors", save, load),
    "timm.safetensors": ("x.safetensors", to_timm_file, from_timm),
    "timm.pth": ("x.pth", to_timm_file, from_timm),
    "deepmind": ("x.npz", to_deepmind, from_deepmind),
}


@pytest.mark.parametrize(("name", "write", "read"), READERS.values(), ids=READERS)
def test_a_file_is_opened_once(tmp_path, plan, params, monkeypatch, name, write, read):
    """A named pipe takes the file's place as soon as it is open, which nothing waits for."""
    from nfspec import files

    def swap(path):
        file = files.opened(path)
        path.unlink()
        os.mkfifo(path)
        return file

    write(tmp_path / name, plan, params)
    whole = read(tmp_path / name, plan)
    monkeypatch.setattr("nfspec.weights.files.opened", swap)
    actual = read(tmp_path / name, plan)
    if isinstance(whole, dict):
        same(actual, whole)
    else:
        assert actual == whole == 10
    monkeypatch.undo()
    if isinstance(whole, dict):
        with pytest.raises(nfspec.WeightError, match="a named pipe, where a regular file"):
            read(tmp_path / name, plan)


WRITERS = {
    "own": ("x.safetensors", save),
    "timm.safetensors": ("x.safetensors", to_timm_file),
    "timm.pth": ("x.pth", to_timm_file),
    "deepmind": ("x.npz", to_deepmind),
}


@pytest.fixture
def full_disk():
    """No file of this process can grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_old_file(tmp_path, plan, params, complaint, full_disk, name, write):
    (tmp_path / name).write_text("old")
    assert complaint(write, tmp_path / name, plan, params) == (
        f"{name}: cannot be written: File too large"
    )
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]
