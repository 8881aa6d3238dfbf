"""Weights travel: saved from a model in one framework, loaded in another, identical bits."""

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
backend, spec, path = sys.argv[1:]
spec = nfspec.load(spec)
plan = nfspec.resolve(spec)
model = nfspec.compile(spec, backend, trial_params(plan, 7))
nfspec.weights.save(path, plan, nfspec.params_of(model))
"""

LOAD = """
import sys
import nfspec
from nfspec.conformance.cases.weights import params_digest
backend, spec, *paths = sys.argv[1:]
spec = nfspec.load(spec)
plan = nfspec.resolve(spec)
for path in paths:
    model = nfspec.compile(spec, backend, nfspec.weights.load(path, plan))
    print(params_digest(nfspec.weights.check(plan, nfspec.params_of(model))))
"""

SAVE_MODEL = """
import sys
import nfspec
backend, spec, path = sys.argv[1:]
nfspec.compile(nfspec.load(spec), backend).save(path)
"""

LOAD_MODEL = """
import os, sys
os.environ["KERAS_BACKEND"] = sys.argv[1]
import keras
import nfspec
import nfspec.backends.register
model = keras.saving.load_model(sys.argv[2])
print(len(nfspec.params_of(model)), keras.backend.backend())
"""

SPEC = "timm/test_nfnet"


def run(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {backend: str(folder / f"{backend}.safetensors") for backend in BACKENDS}
    for backend, path in paths.items():
        run(SAVE, backend, SPEC, path)
    return paths


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_nine_pairs(backend, saved):
    exact = params_digest(trial_params(nfspec.resolve(nfspec.load(SPEC)), 7))
    assert run(LOAD, backend, SPEC, *saved.values())[-3:] == [exact] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_model_loads_in_a_fresh_process(backend, tmp_path):
    """README: import nfspec.backends.register, then keras.saving.load_model."""
    path = str(tmp_path / "model.keras")
    run(SAVE_MODEL, backend, SPEC, path)
    count = len(nfspec.resolve(nfspec.load(SPEC)).parameters)
    assert run(LOAD_MODEL, backend, path)[-1] == f"{count} {backend}"
