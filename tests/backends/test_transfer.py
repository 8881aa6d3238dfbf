"""Weights travel: saved from a model in one framework, loaded in another, identical bits."""

import json
import subprocess
import sys

import pytest

import nfspec
from nfspec.conformance.cases.weights import params_digest, trial_params

from .small import small_params, small_run, small_spec

SPEC = "timm/test_nfnet"

# As docs/models.md says: nfspec.load_model; or import nfspec.backends.register, then
# keras.saving.load_model.
LOAD = """
import json, os, sys
backend, model, with_sam = sys.argv[1:]
os.environ["KERAS_BACKEND"] = backend
import keras
import nfspec.backends.register
with_sam = keras.saving.load_model(with_sam)
import nfspec
model = nfspec.load_model(model)
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


def test_what_is_no_saved_model_is_a_sentence(tmp_path):
    with pytest.raises(nfspec.InputError, match=r"none\.keras: there is no such file$"):
        nfspec.load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(nfspec.InputError, match=r"text\.keras: Keras cannot load it: "):
        nfspec.load_model(tmp_path / "text.keras")
