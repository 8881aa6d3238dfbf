"""Weights to start a training from: all of a file but for the classifier, where that is another."""

import os
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nfspec
from nfspec import weights
from nfspec.language.loader import given, load
from nfspec.plan.resolver import resolve
from nfspec.training.starting import classes_of, start_from, with_new_head

SMALL = {
    ("stem", "width"): (16,),
    ("stem", "kernel"): 3,
    ("stem", "stride"): 2,
    ("stages", "depth"): (1, 1),
    ("stages", "width"): (32, 48),
    ("stages", "stride"): (1, 2),
    ("stages", "group_width"): 16,
    ("head", "conv"): "none",
}
HEAD = ["head.fc.kernel", "head.fc.bias"]
KINDS = {
    "nfspec": (weights.save, weights.load),
    "timm": (weights.to_timm_file, weights.from_timm),
}


@cache
def spec_of(classes, **head):
    values = {("head", key): value for key, value in head.items()}
    return load("nfnet-nano", [given("small", {**SMALL, ("head", "classes"): classes, **values})])


@cache
def plan_of(classes):
    return resolve(spec_of(classes))


def trained(classes):
    """Weights that are no initial ones."""
    drawn, rng = nfspec.init(plan_of(classes), seed=9), np.random.default_rng(0)
    return {
        name: np.asarray(value + rng.standard_normal(value.shape), np.float32)
        for name, value in drawn.items()
    }


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def written(tmp_path, kind, classes, name="old.safetensors"):
    params = trained(classes)
    kind[0](tmp_path / name, plan_of(classes), params)
    return tmp_path / name, params


def start(path, kind, wanted, usual=1000, new_head=False, seed=3):
    """Without a warning of another spec either, as warnings are errors here."""
    return start_from(path, kind[1], plan_of, (wanted, usual), new_head=new_head, seed=seed)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# a new head


@pytest.mark.parametrize("classes", [7, 10])
def test_a_new_head_is_drawn_as_init_draws_it_and_the_rest_kept_to_the_bit(classes):
    old, plan = trained(10), plan_of(classes)
    params = with_new_head(old, plan, 3)
    assert list(params) == list(plan.parameters)
    fresh = nfspec.init(plan, 3)
    for name in params:
        assert same(params[name], fresh[name] if name in HEAD else old[name])
    assert params["head.fc.kernel"].shape == (48, classes)


def test_a_new_head_is_drawn_as_the_spec_says():
    plan = resolve(spec_of(500, init_std=0.125))
    params = with_new_head(trained(10), plan, 3)
    assert not params["head.fc.bias"].any()
    kernel = params["head.fc.kernel"].astype(np.float64)
    assert abs(kernel.std() / 0.125 - 1) < 6 / (2 * kernel.size) ** 0.5  # six standard errors
    assert not with_new_head(trained(10), resolve(spec_of(5, init_std=0.0)), 3)[HEAD[0]].any()


def test_the_seed_decides_on_the_new_head_alone():
    first, second = (with_new_head(trained(10), plan_of(10), seed) for seed in (1, 2))
    assert [name for name in first if not same(first[name], second[name])] == HEAD[:1]


def test_only_the_classifier_is_the_head():
    """A final conv is of the network's body."""
    old = nfspec.init(resolve(load("nfnet-nano")), 1)
    plan = resolve(load("nfnet-nano", [given("a", {("head", "classes"): 4})]))
    params = with_new_head(old, plan, 2)
    assert "final_conv.kernel" in params
    fresh = nfspec.init(plan, 2)
    drawn = [name for name in params if same(params[name], fresh[name]) and name in HEAD]
    assert drawn == HEAD
    assert all(same(params[name], old[name]) for name in params if name not in HEAD)


# files


def test_weights_of_as_many_classes_are_taken_as_they_are(tmp_path, kind):
    path, old = written(tmp_path, kind, 10)
    params, drawn = start(path, kind, 10)
    assert drawn is False
    assert list(params) == list(old)
    assert all(same(params[name], old[name]) for name in old)


@pytest.mark.parametrize("usual", [1000, 10, 7])
def test_weights_of_other_classes_are_taken_but_for_the_head(tmp_path, kind, usual):
    """The number of classes is read from the file, whatever the usual number is."""
    path, old = written(tmp_path, kind, 10)
    params, drawn = start(path, kind, 7, usual)
    assert drawn is True
    fresh = nfspec.init(plan_of(7), 3)
    assert list(params) == list(fresh)
    for name in params:
        assert same(params[name], fresh[name] if name in HEAD else old[name])


def test_a_new_head_may_be_asked_for_though_the_old_one_fits(tmp_path, kind):
    path, old = written(tmp_path, kind, 10)
    params, drawn = start(path, kind, 10, new_head=True)
    assert drawn is True
    fresh = nfspec.init(plan_of(10), 3)
    assert [name for name in params if not same(params[name], old[name])] == HEAD
    assert all(same(params[name], fresh[name]) for name in HEAD)


@pytest.mark.parametrize("classes", [1, 7, 10])
def test_the_classes_of_a_file_are_found(tmp_path, kind, classes):
    assert classes_of(written(tmp_path, kind, classes)[0]) == classes


def test_the_bias_of_a_final_conv_is_no_classifiers(tmp_path, kind):
    plan = resolve(load("nfnet-nano", [given("a", {("head", "classes"): 4})]))
    assert "final_conv.bias" in plan.parameters
    kind[0](tmp_path / "old.safetensors", plan, nfspec.init(plan))
    assert classes_of(tmp_path / "old.safetensors") == 4


def test_the_classes_of_other_files_are_not_known(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    (tmp_path / "weights.npz").write_bytes(b"PK")
    for name in ("other.safetensors", "garbage.safetensors", "weights.npz", "missing.safetensors"):
        assert classes_of(tmp_path / name) is None


@pytest.mark.parametrize("wanted", [7, 10])
def test_a_file_that_does_not_say_is_tried_with_the_usual_classes_and_then_those_wanted(
    tmp_path, wanted
):
    path = tmp_path / "weights.npz"
    path.touch()
    for fits in (10, 7, 5):
        tried = []

        def read(path, plan, tried=tried, fits=fits):
            classes = plan.parameters["head.fc.bias"].shape[0]
            tried.append(classes)
            if classes != fits:
                raise nfspec.WeightError(f"does not fit {classes}")
            return trained(classes)

        def begin(read=read):
            return start_from(path, read, plan_of, (wanted, 10), new_head=False, seed=3)

        if fits not in (10, wanted):
            with pytest.raises(nfspec.WeightError, match="does not fit 10"):
                begin()
            continue
        params, drawn = begin()
        assert tried == ([10] if fits == 10 else [10, 7])
        assert drawn is (fits != wanted)
        assert params["head.fc.bias"].shape == (wanted,)


# what is wrong with a file


def test_weights_of_another_network_are_refused(tmp_path, kind):
    other = resolve(load("timm/test_nfnet"))
    path = tmp_path / "old.safetensors"
    kind[0](path, other, nfspec.init(other))
    with pytest.raises(nfspec.WeightError) as error:
        start(path, kind, 10)
    assert str(error.value).startswith(f"{path}: ")
    assert "not fit nfnet-nano:" in str(error.value)


def test_weights_of_the_other_kind_are_refused_with_advice(tmp_path):
    path, _ = written(tmp_path, KINDS["timm"], 10)
    with pytest.raises(nfspec.WeightError, match=r"use nfspec\.weights\.from_timm"):
        start(path, KINDS["nfspec"], 10)


def test_weights_of_a_spec_with_another_meaning_are_taken_with_a_warning(tmp_path):
    values = {**SMALL, ("head", "classes"): 10, ("ws", "eps"): 1e-5}
    other = resolve(load("nfnet-nano", [given("a", values)]))
    weights.save(tmp_path / "old.safetensors", other, trained(10))
    with pytest.warns(weights.DigestWarning, match="ws.eps: 1e-05 in the file, 0.0001 here"):
        start(tmp_path / "old.safetensors", KINDS["nfspec"], 7)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.npz", "folder.safetensors"])
def test_a_file_that_is_not_there(tmp_path, kind, name):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(nfspec.WeightError) as error:
        start(tmp_path / name, kind, 10)
    if kind is KINDS["nfspec"] or name.endswith("safetensors"):
        assert str(error.value).startswith(f"{tmp_path / name}: cannot be read: ")


def test_a_pipe_is_said_to_be_one(tmp_path, kind):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(nfspec.WeightError, match="a named pipe, where a regular file"):
        start(tmp_path / "x.safetensors", kind, 10)


def test_a_file_without_a_classifier_gets_a_new_one(tmp_path, kind):
    path, old = written(tmp_path, kind, 10)
    tensors = {name: value for name, value in load_file(path).items() if "head.fc" not in name}
    save_file(tensors, path)
    params, drawn = start(path, kind, 7)
    assert drawn is True
    fresh = nfspec.init(plan_of(7), 3)
    assert all(same(params[name], (fresh if name in HEAD else old)[name]) for name in fresh)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_damaged_file_is_refused(tmp_path, kind, keep):
    path, _ = written(tmp_path, kind, 10)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(nfspec.WeightError) as error:
        start(path, kind, 10)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("shape", [(), (0,), (3, 3)])
def test_a_classifier_that_is_none_is_refused(tmp_path, shape):
    tensors = {name: np.ascontiguousarray(value) for name, value in trained(10).items()}
    tensors["head.fc.bias"] = np.zeros(shape, np.float32)
    path = tmp_path / "old.safetensors"
    save_file(tensors, path)
    with pytest.raises(nfspec.WeightError, match=r"head\.fc\.bias: shape"):
        start(path, KINDS["nfspec"], 10)
