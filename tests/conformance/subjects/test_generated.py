"""Generated files as subjects: they conform, and a mistake in a template does not."""

import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import variants

import nfspec
from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.target import plan_of
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.compare import distance
from nfspec.conformance.properties.networks import block_plan
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import NotOffered, loading
from nfspec.conformance.subjects.generated import carriers
from nfspec.conformance.subjects.generated.jax import JaxSource
from nfspec.conformance.subjects.generated.numpy import NumpySource
from nfspec.conformance.subjects.generated.torch import TorchSource
from nfspec.conformance.subjects.loading import SHIPPED
from nfspec.conformance.workers import frameworks
from nfspec.errors import BackendError
from nfspec.language.fields import Unit
from nfspec.plan import Pool
from nfspec.reference.training import clip as clip_exactly

from ..conventions.local import SPEC, within
from generation.mutants import Mutant, seed

COMMON = (
    "EXACT-01", "EXACT-02", "EXACT-03", "MODE-01", "WS-01", "ACT-01", "POOL-01", "SE-01",
    "BLOCK-01", "NET-03", "WEIGHTS-01",
)  # fmt: skip
TRAINED = ("EXACT-04", "WS-02", "ACT-02", "SE-02", "AGC-01", "STEP-01")
OFFERED = {
    "torch-source": (*COMMON, *TRAINED),
    "numpy-source": (*COMMON, "FC-01"),
    "mlx-source": (*COMMON, *TRAINED),
    "jax-source": ("SE-01", "STEP-01", "WEIGHTS-01"),  # the others compile for long
    "flax-source": ("SE-01",),
}
LONG = ("TRAIN-01", "DROP-03", "DROP-04")
SLOW = {
    "jax-source": (*COMMON, *TRAINED, *LONG),
    "flax-source": (*COMMON, *TRAINED, *LONG),
    "mlx-source": LONG,
}
# A mistake of a template, and the property that sees it.
MISTAKES = {
    ("torch-source", "WS-01"): Mutant("layers.jinja", "variance.clamp(min=", "(variance + "),
    ("torch-source", "AGC-01"): Mutant("training.jinja", "norm.clamp(min=eps)", "norm"),
    ("torch-source", "BLOCK-01"): Mutant("block.jinja", '"%s * act(x)"', '"act(%s * x)"'),
    ("torch-source", "STEP-01"): Mutant(
        "network.py.jinja", 'weight_decay if name.endswith("weight") else 0.0', "weight_decay"
    ),
    ("jax-source", "AGC-01"): Mutant("parameters.jinja", "jnp.maximum(norm, ", "(norm + "),
    ("flax-source", "AGC-01"): Mutant("clipping.jinja", "jnp.maximum(norm, ", "(norm + "),
    ("mlx-source", "WS-01"): Mutant("layers.jinja", "mx.maximum(variance, ", "(variance + "),
    ("mlx-source", "NET-03"): Mutant("network.py.jinja", '"act(x)"', '"x"'),
    ("mlx-source", "STEP-01"): Mutant("network.py.jinja", "range(1, p.ndim)", "range(p.ndim - 1)"),
    ("numpy-source", "SE-01"): Mutant(
        "layers.jinja", "np.where(x < 0, small, 1) / (1 + small)", "0.5 + 0.5 * np.tanh(0.5 * x)"
    ),
    ("numpy-source", "BLOCK-01"): Mutant(
        "block.jinja", "if net.residual.skip_gain else alpha }} *", "if 0 else alpha }} *"
    ),
    ("numpy-source", "NET-03"): Mutant(
        "network.py.jinja", "={{ blocks.values[row.name]", "={{ 2 * blocks.values[row.name]"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def without_keras(monkeypatch):
    """The kit imports Keras, which no file here needs, wherever Keras could run."""
    monkeypatch.setattr(frameworks, "select", lambda name: None)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "small.toml"
    path.write_text(SPEC)
    return str(path)


def require(subject):
    """Skip where a package of some machines alone is not installed."""
    for target, package in (("mlx", "mlx.core"), ("flax", "flax")):
        if subject.startswith(target):
            pytest.importorskip(package)


def passes(properties):
    """The verdicts of a file that conforms. It does not draw weights by nfspec's seed."""
    return {name: "pass in part" if name == "WEIGHTS-01" else "pass" for name in properties}


def verdicts(spec, subject, properties):
    require(subject)
    settings = Settings(spec, (subject,), examples=0, properties=properties)
    results = run(settings, workers_of=within)
    return {cell.property: cell.verdict for cell in results.cells}


@pytest.mark.parametrize("subject", OFFERED)
def test_a_file_conforms(subject, spec):
    assert verdicts(spec, subject, OFFERED[subject]) == passes(OFFERED[subject])


@pytest.mark.parametrize(("subject", "seen_by"), MISTAKES)
def test_a_mistake_of_a_template_is_seen(subject, seen_by, spec, monkeypatch):
    mutant = MISTAKES[subject, seen_by]
    seed(monkeypatch, subject.removesuffix("-source"), mutant)
    assert verdicts(spec, subject, (seen_by,)) != {seen_by: "pass"}


@pytest.mark.slow
@pytest.mark.parametrize("subject", SLOW)
def test_a_file_conforms_in_what_takes_long(subject, spec):
    assert verdicts(spec, subject, SLOW[subject]) == passes(SLOW[subject])


@pytest.mark.slow
def test_training_of_jax_drops(spec):
    """A step with the rates of the spec is another one than a step without."""
    results = []
    for drops in (False, True):
        plan = plan_of(spec, True, drops)
        x = np.random.default_rng(0).standard_normal((8, 32, 32, 3)).astype(np.float32)
        labels = np.eye(10, dtype=np.float32)[:8]
        trained = JaxSource("f32").train(plan, trial_params(plan, 0), x, labels, 1)
        results.append(trained["first/head.fc.kernel"])
    assert np.isfinite(results).all() and not np.array_equal(*results)


@pytest.mark.parametrize("subject", [TorchSource, JaxSource])
@pytest.mark.parametrize("unit", get_args(Unit))
def test_every_unit_of_clipping(subject, unit):
    """A gain of three elements, of which one is beyond its limit by itself or with the others."""
    clip = Clip("gain", (3,), unit, 0.5, 1e-3)
    gradient, parameter = np.float32([4, 1, 0]), np.float32([2, 4, 4])
    framework = frameworks.load(subject.framework)
    got = framework.compiled(subject("f32").agc(clip))(gradient, parameter)
    exact, _ = clip_exactly(*map(np.float64, (gradient, parameter)), clip.rule)
    assert distance(got, exact) <= 2.0**-22
    alone = unit in ("timm", "element")
    assert np.array_equal(got[1:], gradient[1:]) == alone


def refused(call, *arguments):
    with pytest.raises(NotOffered) as caught:
        call(*arguments)
    return str(caught.value)


def test_what_a_file_has_no_counterpart_of(spec):
    assert "mode f32, not in bf16" in refused(TorchSource, "bf16")
    torch, numpy = TorchSource("f32"), NumpySource("f32")
    most = Pool("op", ("x",), "max", 3, 2, "same")
    assert "NET-01" in refused(torch.pool, most)
    assert "no network has a same avg pool of 3x3" in refused(numpy.pool, replace(most, kind="avg"))
    plan = plan_of(spec, True)
    for subject in (torch, numpy, JaxSource("f32")):
        assert "draws" in refused(subject.through, plan, None)
    block = block_plan(plan, "stages.1.blocks.0")
    other = replace(block, ops=tuple(reversed(block.ops)))
    assert "is not as its spec has it" in refused(torch.block, other)


def test_a_recipe_that_lets_gains_decay(spec):
    plan = plan_of(spec, True)
    recipe = plan.recipe.model_copy(update={"weight_decay_exclude": ("bias",)})
    message = refused(TorchSource("f32")._trainer, replace(plan, recipe=recipe), nfspec.init(plan))
    assert message == "the file's parameter groups let kernels decay, and nothing else"


def test_without_the_framework(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match="run: pip install torch"):
        TorchSource("f32")


def test_a_block_is_of_the_network_that_its_spec_has(spec):
    plan = plan_of(spec, True)
    whole, row = carriers.network_of(block_plan(plan, "stages.1.blocks.1"))
    assert (whole.ops, row) == (plan.ops, plan.blocks[2])


@pytest.mark.slow
@pytest.mark.parametrize("variant", nfspec.variants())  # one after another, for each subject
@pytest.mark.parametrize("subject", [name for name in SHIPPED if name in (*OFFERED, *SLOW)])
def test_every_variant(subject, variant, tmp_path, quick_jax):
    """Logits within the bound, and weights that come back to the bit, also by another's file."""
    require(subject)
    variants.within_bound(loading.load(subject)("f32"), variant, tmp_path)
