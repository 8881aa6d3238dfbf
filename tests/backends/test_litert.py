"""Files of LiteRT in LiteRT, and what is in them."""

import os

import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError

import networks

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    pytest.skip("of TensorFlow", allow_module_level=True)

from nfspec.backends.exporters import litert, savedmodel
from nfspec.plan.free_memory import FLOAT32

ROUNDED = 2.0**-22  # a product with a factor and a quotient by it, each rounded, relative
SLOW = {"plain", "strided", "timm", "attention-mid", "flat", "final-conv", "no-shortcut-conv"}
SLOW |= {"ws-by-stage"}  # a folded file does not show it


def exported(name, folder, **choices):
    plan = nfspec.resolve(networks.network(name, folder))
    params = networks.drawn(plan)[0]
    path = folder / "a.tflite"
    return plan, params, path, nfspec.export(plan, "litert", path, params, **choices)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in sorted(networks.NETWORKS)
    ],
)
def test_a_file_is_proved_and_its_weights_come_back(name, tmp_path):
    plan, params, path, proof = exported(name, tmp_path, outputs=("logits", "pool", "stem"))
    assert proof.same and proof.sizes == 6
    read, folded = litert.read(path), nfspec.fold(plan, params).params
    assert read.network.plan.digest == plan.digest
    assert read.params.keys() == folded.keys()
    for key, value in folded.items():
        np.testing.assert_allclose(read.params[key], value, rtol=ROUNDED, atol=0)


def test_a_file_is_proved_again_and_is_no_larger_than_its_weights(tmp_path):
    choices = {"size": (33, 40), "batch": 2, "layout": "nchw", "preprocess": True}
    *_, path, proof = exported("two-attentions", tmp_path, **choices)
    assert nfspec.verify(path).same
    assert proof.bytes <= 1.05 * proof.weights + 2e4  # the graph and the metadata
    assert proof.facts.nodes["CONV_2D"] > 10 and proof.facts.nodes["GELU"] > 5
    assert not {"SHAPE", "FILL", "BROADCAST_TO", "CUSTOM"} & {*proof.facts.nodes}


def test_a_mistake_is_refused(tmp_path, monkeypatch):
    class Wrong(savedmodel.TensorFlow):
        def mean(self, x):
            return super().mean(x) * 1.01

    monkeypatch.setattr(savedmodel, "TensorFlow", Wrong)
    with pytest.raises(nfspec.ProofError):
        exported("two-attentions", tmp_path, size=(33, 40), batch=1)
    assert not (tmp_path / "a.tflite").exists()


def test_what_is_not_offered(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="a file for LiteRT is f32; found f16"):
        exported("plain", tmp_path, dtype="f16")
    monkeypatch.setattr(litert, "MOST", FLOAT32)
    with pytest.raises(InputError, match="at most 2 GB"):
        exported("plain", tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a .tflite file"),
        (b"\0" * 8, "not a .tflite file"),
        (b"\x20\0\0\0TFL3" + b"\xff" * 90, "cannot be read|that can be read"),
    ],
)
def test_a_file_of_others(data, words, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        nfspec.verify(path)


def test_damage_is_refused_in_a_sentence(tmp_path):
    *_, path, _ = exported("two-attentions", tmp_path, size=(33, 40), batch=1)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(data)
        for at in rng.integers(8, len(data), 400):
            damaged[at] = int(rng.integers(256))
        path.write_bytes(damaged[: int(rng.integers(100, len(data)))])
        try:
            litert.read(path)
        except InputError as error:
            assert "a.tflite" in str(error)
