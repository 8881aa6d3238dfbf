"""Weights read from a file of any kind, and made to fit."""

import os

import numpy as np
import pytest

import nfspec
from nfspec import weights
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.plan.resolver import resolve
from nfspec.weights.kinds import Kind, kind_of_file, read_fitting

from golden import DATA

HEAD = ["head.fc.kernel", "head.fc.bias"]
NAMES = {
    "nfspec": ("old.safetensors", Kind.NFSPEC),
    "timm": ("old.safetensors", Kind.TIMM),
    "timm.pth": ("old.pth", Kind.TIMM),
    "deepmind": ("old.npz", Kind.DEEPMIND),
}


def plan_of(classes, **fields):
    values = {("head", "classes"): classes}
    values |= {tuple(path.split("_")): value for path, value in fields.items()}
    return resolve(load(DATA / "nfnet_tiny.toml", [given("a test", values)]))


def trained(plan):
    """Weights that are no initial ones."""
    rng = np.random.default_rng(0)
    return {
        name: np.asarray(rng.standard_normal(parameter.shape), np.float32)
        for name, parameter in plan.parameters.items()
    }


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def file(request, tmp_path):
    """A function that writes weights, the file's path, and its kind."""
    name, kind = request.param
    write = nfspec.weights.kinds.WRITERS[kind]
    return lambda plan, params: write(tmp_path / name, plan, params), tmp_path / name, kind


def test_weights_that_fit_are_taken_as_they_are(file, same_bits):
    write, path, kind = file
    plan = plan_of(10)
    write(plan, trained(plan))
    assert kind_of_file(path) is kind
    fitted = read_fitting(path, plan, kind, seed=3)
    same_bits(fitted.params, trained(plan))
    assert fitted.changes == ()


def test_other_ends_are_fitted_without_a_warning(file, same_bits):
    write, path, kind = file
    grey = {"input_channels": 1, "input_mean": (0.5,), "input_std": (0.25,)}
    old, plan = plan_of(10), plan_of(7, **grey)
    write(old, trained(old))
    fitted = read_fitting(path, plan, kind, seed=3)
    wanted = weights.fit(trained(old), plan, seed=3)
    same_bits(fitted.params, wanted.params)
    assert fitted.changes == wanted.changes and len(wanted.changes) == 2


def test_a_new_classifier_may_be_asked_for_though_the_old_one_fits(file, same_bits):
    write, path, kind = file
    plan = plan_of(10)
    write(plan, trained(plan))
    fitted = read_fitting(path, plan, kind, seed=3, new_head=True)
    fresh = nfspec.init(plan, 3)
    same_bits(fitted.params, trained(plan) | {name: fresh[name] for name in HEAD})
    assert fitted.changes == ("head.fc: a new classifier of 10 classes, drawn from seed 3",)


def test_weights_of_another_network_are_refused(file, complaint):
    write, path, kind = file
    write(plan_of(10), trained(plan_of(10)))
    other = resolve(load(DATA / "nfnet_tiny.toml", [given("a", {("stages", "expansion"): 1.0})]))
    message = complaint(read_fitting, path, other, kind)
    assert message.startswith(f"{path.name}: ")
    assert "not fit nfnet-tiny:" in message


def test_weights_of_a_spec_with_another_meaning_are_taken_with_a_warning(tmp_path):
    old = plan_of(10, ws_eps=1e-5)
    weights.save(tmp_path / "old.safetensors", old, trained(old))
    with pytest.warns(weights.DigestWarning, match=r"ws\.eps: 1e-05 in the file, 0\.0001 here"):
        read_fitting(tmp_path / "old.safetensors", plan_of(7), Kind.NFSPEC)


def test_a_file_of_another_kind_is_refused_with_advice(tmp_path, complaint):
    weights.to_timm_file(tmp_path / "old.safetensors", plan_of(10), trained(plan_of(10)))
    message = complaint(read_fitting, tmp_path / "old.safetensors", plan_of(7), Kind.NFSPEC)
    assert "use nfspec.weights.from_timm" in message


@pytest.mark.parametrize("content", [None, b"x"], ids=["missing", "damaged"])
def test_a_file_that_cannot_be_read_is_said_to_be_so_whatever_the_network(
    tmp_path, complaint, content
):
    path = tmp_path / "old.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert complaint(kind_of_file, path).startswith("old.safetensors: ")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_damaged_file_is_refused(file, complaint, keep):
    write, path, kind = file
    write(plan_of(10), trained(plan_of(10)))
    path.write_bytes(path.read_bytes()[:keep])
    assert complaint(read_fitting, path, plan_of(7), kind).startswith(f"{path.name}: ")


def test_a_pipe_is_said_to_be_one(file, complaint):
    _, path, kind = file
    os.mkfifo(path)
    assert "a named pipe, where a regular file" in complaint(read_fitting, path, plan_of(7), kind)
