"""Sources of folded networks: the same logits and maps, and nothing in them that training needs."""

import ast
import re
import subprocess
import sys

import numpy as np
import pytest

import nfspec
from nfspec import reference
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.compare import bounds, distance
from nfspec.generation.targets import TARGETS, target_of
from nfspec.rewrites.folding import fold_plan

import networks
from .mutants import expected
from representatives import REPRESENTATIVES

# What multiplies a branch is in its last conv in one stage, and in the gate of SE in the other.
SOME_ATTENDED = ("nfnet-f0", '[stages]\nattention = ["none", "se"]\n')
NAMES = (*networks.NETWORKS, "some-attended")
# Networks with every branch of a folded file, and targets that compile, which takes them seconds.
TELLING = ("some-attended", "unbiased", "max-pool", "short-kernels")
COMPILED = {"jax": TELLING[:1], "flax": (), "keras": ()}


@pytest.fixture(scope="module", autouse=True)
def one_more():
    networks.NETWORKS["some-attended"] = SOME_ATTENDED
    yield
    del networks.NETWORKS["some-attended"]


def case(to, name):
    quick = NAMES if to == "torch" else COMPILED.get(to, TELLING)
    return pytest.param(to, name, marks=[] if name in quick else [pytest.mark.slow])


def furthest(plan, to, sizes):
    """The largest distance of a folded file's logits to the reference, in units of its bound."""
    params, cases = expected(plan)
    network = nfspec.native(nfspec.fold(plan, params), to)
    return max(
        distance(target_of(to).logits(network, images), exact) / bound
        for images, exact, bound in cases[:sizes]
    )


@pytest.mark.parametrize(("to", "name"), [case(to, name) for to in TARGETS for name in NAMES])
def test_logits_are_those_of_the_reference(to, name, plan_of):
    assert furthest(plan_of(name), to, 1 if to in COMPILED else 2) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.parametrize("to", TARGETS)
def test_built_in_networks(to, name):
    assert furthest(reduced_plan(nfspec.load(name)), to, 2) <= 1


@pytest.mark.parametrize("name", ["two-attentions", "max-pool"])
def test_maps_of_torch_are_those_of_the_network(name, plan_of):
    """With the scalar of the activation, which is in kernels where a conv reads the map."""
    torch = pytest.importorskip("torch")
    plan = plan_of(name)
    params, (images, *_) = networks.drawn(plan)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    found = []
    for spec in (plan, nfspec.fold(plan, params)):
        given = None if spec is not plan else params
        with torch.no_grad():
            model = nfspec.native(spec, "torch", params=given).eval()
            features, maps = model.forward_intermediates(x)
        found.append([*maps, features])
    exact = reference.forward(plan, params, images)
    bound = bounds(plan, params, images, exact)["features"]
    for written, folded in zip(*found, strict=True):
        assert distance(folded.numpy(), written.numpy()) <= 2 * bound


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("to", TARGETS)
def test_nothing_is_left_of_training(to, name, plan_of):
    text = nfspec.generate(fold_plan(plan_of(name)), to=to)
    # What standardises, clips, draws and drops; a docstring says that kernels were standardised.
    words = set(re.findall(r"[A-Za-z0-9]+", text))
    left = {"rsqrt", "var", "variance", "fan", "WSConv", "WSConv2d", "clipping"}
    left |= {"remat", "checkpoint", "optimizer", "rate", "dropout", "trunc"}
    assert not words & left, words & left
    assert not re.search(r"(?<!skip_)gain|standardised\(", text)
    # Every function, class and import is used.
    tree = ast.parse(text)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    doors = {"load_weights", "load_safetensors", "export", "forward", "apply"}
    for defined in names:
        used = len(re.findall(rf"\b{defined}\b", text)) > 1
        assert used or defined in doors or defined.startswith("NF"), defined
    ruff = ["ruff", "check", "--isolated", "--line-length", "100", "--select", "E,F,I,UP,B,SIM,C4"]
    run = [sys.executable, "-m", *ruff, "-"]
    done = subprocess.run(run, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("to", TARGETS)
def test_alpha_and_beta_are_named_in_a_docstring_alone(to, plan_of):
    text = nfspec.generate(fold_plan(plan_of("two-attentions")), to=to)
    assert (text.count("alpha"), text.count("beta")) == (1, 2 if "gamma and beta" in text else 1)


def test_what_fold_returned_is_its_plan_and_parameters(plan_of):
    plan = plan_of("plain")
    params, (images, *_) = networks.drawn(plan)
    folded = nfspec.fold(plan, params)
    assert nfspec.generate(folded, to="numpy") == nfspec.generate(folded.plan, to="numpy")
    given = nfspec.native(folded.plan, "numpy", params=folded.params)
    assert np.array_equal(given(images), nfspec.native(folded, "numpy")(images))


def test_another_classifier_but_no_other_channels(plan_of):
    plan = plan_of("plain")
    params, (images, *_) = networks.drawn(plan)
    folded = nfspec.fold(plan, params)
    with pytest.warns(nfspec.weights.FitWarning):
        assert nfspec.native(folded, "numpy", classes=7)(images).shape == (2, 7)
    with pytest.raises(nfspec.InputError, match="channels: folded weights keep theirs"):
        nfspec.native(folded, "numpy", channels=1)
    with pytest.raises(nfspec.InputError, match="jax: a folded network draws no weights"):
        nfspec.native(folded.plan, "jax")
