"""The target `keras` as a subject of the kit, on each framework."""

import keras
import pytest
import variants
from conformance.conventions.local import SPEC, within

import nfspec
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import loading

from generation.mutants import Mutant, seed

BACKEND = keras.backend.backend()
SUBJECT = {"tensorflow": "keras-source"}.get(BACKEND, f"keras-source-{BACKEND}")
LAYERS = ("WS-01", "WS-02", "ACT-02", "POOL-01", "SE-01", "AGC-01")
NETWORKS = ("BLOCK-01", "NET-03", "WEIGHTS-01", "STEP-01")
LONG = ("TRAIN-01", "DROP-03", "DROP-04")
OFFERED = {"torch": (*LAYERS, *NETWORKS), "tensorflow": ("SE-01", "AGC-01"), "jax": ("SE-01",)}
MISTAKES = {
    "WS-01": Mutant("layers.jinja", "ops.maximum(variance, ", "(variance + "),
    "NET-03": Mutant("network.py.jinja", '"act(x)"', '"x"'),
    "AGC-01": Mutant("training.jinja", "ops.maximum(norm, eps)", "norm"),
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "small.toml"
    path.write_text(SPEC)
    return str(path)


def verdicts(spec, properties):
    settings = Settings(spec, (SUBJECT,), examples=0, properties=properties)
    return {cell.property: cell.verdict for cell in run(settings, workers_of=within).cells}


def passes(properties):
    """The verdicts of a file that conforms. It does not draw weights by nfspec's seed."""
    return {name: "pass in part" if name == "WEIGHTS-01" else "pass" for name in properties}


def test_a_file_conforms(spec):
    assert verdicts(spec, OFFERED[BACKEND]) == passes(OFFERED[BACKEND])


@pytest.mark.slow
def test_a_file_conforms_in_what_takes_long(spec):
    properties = LONG if BACKEND == "torch" else (*LAYERS, *NETWORKS, *LONG)
    assert verdicts(spec, properties) == passes(properties)


@pytest.mark.skipif(BACKEND != "torch", reason="the same templates on each framework")
@pytest.mark.parametrize("seen_by", MISTAKES)
def test_a_mistake_of_a_template_is_seen(seen_by, spec, monkeypatch):
    seed(monkeypatch, "keras", MISTAKES[seen_by])
    assert verdicts(spec, (seen_by,)) != {seen_by: "pass"}


@pytest.mark.slow
@pytest.mark.parametrize("variant", nfspec.variants())
def test_every_variant(variant, tmp_path):
    """Logits within the bound, and weights that come back to the bit, also by another's file."""
    variants.within_bound(loading.load(SUBJECT)("f32"), variant, tmp_path)
    keras.utils.clear_session()
