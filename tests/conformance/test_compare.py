"""The comparison of the frameworks with the reference, and that it can fail."""

import numpy as np
import pytest

import nfspec
from nfspec.compilation import BACKENDS
from nfspec.conformance import compare as module
from nfspec.conformance.cases.weights import params_digest
from nfspec.conformance.compare import Comparison, Run, compare, distance
from nfspec.data.images import prepare, sample_photo


@pytest.fixture
def shared(torch_process, monkeypatch):
    """`compare` asks that process, and leaves it running."""
    monkeypatch.setattr(module, "WorkerProcess", lambda backend: torch_process)


def images(side=32):
    return np.random.default_rng(0).standard_normal((1, side, side, 3)).astype(np.float32)


@pytest.mark.slow  # a minute; `make demo` does the same
def test_f0_on_the_photograph():
    spec = nfspec.load("nfnet-f0")
    result = compare(spec, prepare(sample_photo(), spec.input, 256), BACKENDS)
    assert [run.backend for run in result.ran] == list(BACKENDS)
    assert result.same
    blocks = [f"stages.{s}.blocks.{b}" for s, n in enumerate((1, 2, 6, 3)) for b in range(n)]
    assert list(result.taps) == ["stem", *blocks, "features", "pool", "logits"]
    assert max(run.distance["logits"] for run in result.ran) <= 5e-6


def test_weights_of_another_run_are_not_the_same_network(monkeypatch, shared):
    """A worker that computes with one changed gain is found out, at the block where it is."""
    spec = nfspec.load("timm/test_nfnet")
    name = "stages.2.blocks.0.conv1.gain"

    def changed(plan, seed):
        params = original(plan, seed)
        params[name] = params[name] * np.float32(1.0001)
        return params

    original = module.trial_params
    monkeypatch.setattr(module, "trial_params", changed)  # the parent's, not the worker's
    monkeypatch.setattr(module, "params_digest", lambda params: digest)
    digest = params_digest(original(nfspec.resolve(spec), 0))
    result = compare(spec, images(64), ("torch",))
    assert result.beyond(result.runs[0])[0] == "stages.2.blocks.0"
    assert result.verdict == "NOT THE SAME" and not result.same


def test_other_weights_than_asked_for_are_an_error(monkeypatch, shared):
    monkeypatch.setattr(module, "params_digest", lambda params: "another")
    result = compare(nfspec.load("timm/test_nfnet"), images(), ("torch",))
    assert result.runs[0].problem == "torch: built other weights or another spec than requested"
    assert result.verdict == "NOT SHOWN" and not result.same


def test_a_missing_framework_is_named_and_the_others_run(monkeypatch, shared):
    message = "jax not installed; run: pip install jax"
    monkeypatch.setattr(module, "missing", lambda name: message if name == "jax" else None)
    result = compare(nfspec.load("timm/test_nfnet"), images(), ("jax", "torch"))
    jax, torch = result.runs
    assert (jax.installed, jax.problem) == (False, message)
    assert result.ran == (torch,)
    assert result.verdict == "THE SAME NETWORK" and result.same


def test_nothing_that_ran_is_not_the_same():
    assert not Comparison(("logits",), {"logits": 1.0}, (), 0.0).same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2e-6])
def test_a_distance_beyond_its_bound_or_not_a_number_fails(value):
    run = Run("jax", distance={"logits": value})
    assert not Comparison(("logits",), {"logits": 1e-6}, (run,), 0.0).same


def test_distance():
    exact = np.array([3.0, 4.0])
    assert distance(np.array([3.0, 4.5]), exact) == 0.1
    assert distance(np.array([3.0]), exact) == float("inf")
    assert distance(np.array([3.0, np.nan]), exact) == float("inf")
    assert distance(np.zeros(2), np.zeros(2)) == 0.0
    assert distance(np.ones(2), np.zeros(2)) == float("inf")
