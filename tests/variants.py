"""Every built-in network, reduced, in a generated file: a test for each target and variant."""

from functools import cache

import numpy as np

import nfspec
from nfspec import reference
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.compare import bounds, distance
from nfspec.generation.targets import target_of


@cache
def expected(variant):
    """Plan, parameters, images of odd and even sides, exact logits, and the bound."""
    plan = reduced_plan(nfspec.load(variant))
    params = trial_params(plan, 0)
    images = np.random.default_rng(0).standard_normal((1, 35, 48, 3)).astype(np.float32)
    exact = reference.forward(plan, params, images, {"logits": plan.taps["logits"]})
    return plan, params, images, exact["logits"], bounds(plan, params, images, exact)["logits"]


def through_another(plan, params, folder):
    """Weights through a file of timm's, or of the original's."""
    if plan.name.startswith("timm/"):
        nfspec.weights.to_timm_file(folder / "timm.safetensors", plan, params)
        return nfspec.weights.from_timm(folder / "timm.safetensors", plan)
    nfspec.weights.to_deepmind(folder / "w.pkl", plan, params)
    return nfspec.weights.from_deepmind(folder / "w.pkl", plan)


def within_bound(subject, variant, folder):
    """Logits within the bound, and weights that come back to the bit, also by another's file."""
    plan, params, images, exact, bound = expected(variant)
    network = nfspec.native(plan, subject.target, params=params)
    assert distance(target_of(subject.target).logits(network, images), exact) <= bound
    back = through_another(plan, subject.through(plan, params), folder)
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[name], value) for name, value in params.items())
