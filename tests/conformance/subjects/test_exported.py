"""Exported files as subjects: blocks and networks in their runtimes."""

import numpy as np
import pytest

import nfspec
from nfspec import reference
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.compare import bounds, distance
from nfspec.conformance.properties.networks import block_plan
from nfspec.conformance.subjects import NotOffered, exported


@pytest.mark.parametrize(
    "kind", [exported.OnnxRuntime, pytest.param(exported.OpenVino, marks=pytest.mark.slow)]
)
def test_networks_and_blocks_are_those_of_the_reference(kind):
    plan, subject = reduced_plan(nfspec.load("timm/eca_nfnet_l0")), kind("f32")
    params = trial_params(plan, 0)
    for part in (plan, block_plan(plan, "stages.1.blocks.0")):
        own = {name: params[name] for name in part.parameters}
        x = np.random.default_rng(0).standard_normal((2, 33, 46, part.channels)).astype(np.float32)
        exact = reference.forward(part, own, x)
        bound = bounds(part, own, x, exact)
        found = subject.forward(part)(x, own)
        assert found.keys() == exact.keys()
        for tap, value in exact.items():
            assert distance(found[tap], value) <= bound[tap], tap
    np.testing.assert_array_equal(subject.block(part)(x, own), found["block"])


def test_other_modes_are_not_offered():
    with pytest.raises(NotOffered, match="mode f32"):
        exported.OnnxRuntime("bf16")
