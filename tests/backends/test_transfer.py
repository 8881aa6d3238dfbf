"""Weights travel: saved from a model in one framework, loaded in another, identical bits."""

import json
import subprocess
import sys

import nfspec
from nfspec.conformance.cases.weights import params_digest, trial_params

from .small import small_params, small_run, small_spec

SPEC = "timm/test_nfnet"

# README: import nfspec.backends.register, then keras.saving.load_model. Nothing else comes before.
LOAD = """
import json, os, sys
backend, model, with_sam = sys.argv[1:]
os.environ["KERAS_BACKEND"] = backend
import keras
import nfspec
import nfspec.backends.register
model, with_sam = keras.saving.load_model(model), keras.saving.load_model(with_sam)
from nfspec.conformance.cases.weights import params_digest
agc = with_sam.optimizer.inner.agc
params = [nfspec.params_of(model), dict(sorted(nfspec.params_of(with_sam).items()))]
facts = [with_sam.rho, with_sam.fraction, agc.clipping]
print(json.dumps([keras.backend.backend(), *map(params_digest, params), facts]))
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


def test_saved_models_load_in_a_fresh_process(backend, tmp_path):
    """One as it is compiled, and one that trains by SAM, with its optimizer."""
    spec = nfspec.load(SPEC)
    params = trial_params(nfspec.resolve(spec), 7)
    model, with_sam = tmp_path / "model.keras", tmp_path / "sam.keras"
    nfspec.compile(spec, backend, params).save(model)
    trainer = nfspec.sam(nfspec.compile(small_spec(), backend, small_params()), 0.1, 0.5)
    trainer.compile(small_run().optimizer(), small_run().loss())
    trainer.save(with_sam)
    command = [sys.executable, "-c", LOAD, backend, str(model), str(with_sam)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    digests = [params_digest(params), params_digest(dict(sorted(small_params().items())))]
    assert json.loads(done.stdout.splitlines()[-1]) == [backend, *digests, [0.1, 0.5, 0.01]]
