"""Weights that `nfspec train` starts from, and those that it leaves as they are."""

import re
import shutil

import numpy as np

import nfspec
from nfspec.weights.store import read_all

from served import assert_refused
from tiny import snapshot


def test_what_is_not_this_networks_weights_is_refused(train, finished, tmp_path):
    whole = (finished[0] / "weights.safetensors").read_bytes()
    other = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    nfspec.weights.save(tmp_path / "other.safetensors", other, nfspec.init(other))
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.npz").write_text("text")
    messages = {
        "other.safetensors": "not fit tiny",
        "half.safetensors": "damaged or cut short",
        "empty.safetensors": "empty file",
        "text.npz": "text.npz: ",
    }
    for name, message in messages.items():
        file = tmp_path / name
        result = train("--out", tmp_path / "run", "--init", file)
        assert_refused(result, f"{name}.*{message}|{message}")
        assert snapshot(tmp_path / "run") == {}


def test_advice_on_weights_is_of_options_that_there_are(train, tmp_path):
    for file in (tmp_path / "weights.bin", tmp_path):
        result = train("--out", tmp_path / "run", "--init", file)
        assert_refused(result, re.escape(str(file)))
        assert "--from" not in result.stderr


def test_training_starts_from_weights_and_draws_a_classifier_where_it_must(
    train, finished, place, tmp_path
):
    """The first step's learning rate is zero, so that the averages after it are the weights, but
    for three roundings."""
    weights, _ = read_all(finished[0] / "weights.safetensors")
    data = shutil.copytree(place / "data", tmp_path / "data")
    two = shutil.copytree(place / "data", tmp_path / "two")
    shutil.rmtree(two / "red")
    cases = [([], data, False), (["--new-head"], data, True), ([], two, True)]
    for number, (options, images, drawn) in enumerate(cases):
        out = tmp_path / str(number)
        start = ("--init", finished[0] / "weights.safetensors", "--warmup", 1, "--stop-at", 1)
        result = train("--out", out, *start, *options, data=images)
        assert result.exit_code == 0, result.stderr
        assert ("head.fc: a new classifier of" in result.stderr) == drawn
        arrays, _ = read_all(out / "weights.safetensors")
        for name, array in weights.items():
            fits = arrays[name].shape == array.shape
            same = fits and np.allclose(arrays[name], array, rtol=2**-22, atol=0)
            assert same == (not (drawn and name.startswith("head."))), name


def test_a_pattern_that_is_for_no_parameter_freezes_nothing(train, tmp_path):
    result = train("--out", tmp_path / "run", "--freeze", "steam.*")
    assert_refused(result, r'freeze: no parameter is called "steam\.\*"; \* stands for any')
    assert snapshot(tmp_path / "run") == {}  # so that the command works once it is fixed
    assert_refused(train("--out", tmp_path / "other", "--freeze", "*"), "nothing is left to train")
