"""Weights travel: saved from a model in one framework, loaded in another, identical bits."""

import json
import subprocess
import sys

import nfspec
from nfspec.conformance.cases.weights import params_digest, trial_params

SPEC = "timm/test_nfnet"

# README: import nfspec.backends.register, then keras.saving.load_model. Nothing else comes before.
LOAD = """
import json, os, sys
backend, model = sys.argv[1:]
os.environ["KERAS_BACKEND"] = backend
import keras
import nfspec
import nfspec.backends.register
loaded = keras.saving.load_model(model)
from nfspec.conformance.cases.weights import params_digest
print(json.dumps([keras.backend.backend(), params_digest(nfspec.params_of(loaded))]))
"""


def test_a_file_has_the_same_bytes_whichever_framework_wrote_it(backend, tmp_path):
    """So each framework reads what any other wrote: this runs on all of them."""
    spec = nfspec.load(SPEC)
    plan = nfspec.resolve(spec)
    params = trial_params(plan, 7)
    exact, written = tmp_path / "exact.safetensors", tmp_path / "written.safetensors"
    nfspec.weights.save(exact, plan, params)
    nfspec.weights.save(written, plan, nfspec.params_of(nfspec.compile(spec, backend, params)))
    assert written.read_bytes() == exact.read_bytes()
    model = nfspec.compile(spec, backend, nfspec.weights.load(exact, plan))
    read = nfspec.weights.check(plan, nfspec.params_of(model))
    assert params_digest(read) == params_digest(params)


def test_a_saved_model_loads_in_a_fresh_process(backend, tmp_path):
    spec = nfspec.load(SPEC)
    params = trial_params(nfspec.resolve(spec), 7)
    path = tmp_path / "model.keras"
    nfspec.compile(spec, backend, params).save(path)
    command = [sys.executable, "-c", LOAD, backend, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [backend, params_digest(params)]
