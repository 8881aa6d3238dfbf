"""Weights travel: saved from a model in one framework, loaded in another, identical bits."""

import json
import subprocess
import sys

import pytest

import nfspec
from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.weights import params_digest, trial_params

SAVE = """
import sys
import nfspec
from nfspec.conformance.cases.weights import trial_params
backend, spec, weights, model = sys.argv[1:]
spec = nfspec.load(spec)
plan = nfspec.resolve(spec)
built = nfspec.compile(spec, backend, trial_params(plan, 7))
nfspec.weights.save(weights, plan, nfspec.params_of(built))
nfspec.compile(spec, backend).save(model)
"""

# README: import nfspec.backends.register, then keras.saving.load_model. Nothing else comes before.
LOAD = """
import json, os, sys
backend, spec, model, *paths = sys.argv[1:]
os.environ["KERAS_BACKEND"] = backend
import keras
import nfspec
import nfspec.backends.register
loaded = keras.saving.load_model(model)
from nfspec.conformance.cases.weights import params_digest
spec = nfspec.load(spec)
plan = nfspec.resolve(spec)
digests = []
for path in paths:
    built = nfspec.compile(spec, backend, nfspec.weights.load(path, plan))
    digests.append(params_digest(nfspec.weights.check(plan, nfspec.params_of(built))))
print(json.dumps([len(nfspec.params_of(loaded)), keras.backend.backend(), digests]))
"""

SPEC = "timm/test_nfnet"


def run(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """For each framework a file of weights and a Keras model, written by a process of its own."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {
        backend: (str(folder / f"{backend}.safetensors"), str(folder / f"{backend}.keras"))
        for backend in BACKENDS
    }
    for backend, files in paths.items():
        run(SAVE, backend, SPEC, *files)
    return paths


@pytest.fixture(scope="module")
def loaded(saved):
    """For each framework what a fresh process finds: the number of parameters of its own Keras
    model, the framework, and the digests of the weights of all three."""
    weights = [weights for weights, _ in saved.values()]
    return {
        backend: json.loads(run(LOAD, backend, SPEC, model, *weights)[-1])
        for backend, (_, model) in saved.items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_nine_pairs(backend, loaded):
    exact = params_digest(trial_params(nfspec.resolve(nfspec.load(SPEC)), 7))
    assert loaded[backend][2] == [exact] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_model_loads_in_a_fresh_process(backend, loaded):
    count = len(nfspec.resolve(nfspec.load(SPEC)).parameters)
    assert loaded[backend][:2] == [count, backend]
