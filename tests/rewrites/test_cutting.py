"""Plans up to some outputs."""

import numpy as np
import pytest

import nfspec
from nfspec.rewrites.cutting import cut

import networks


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return nfspec.resolve(networks.network("plain", tmp_path_factory.mktemp("specs")))


def test_what_no_output_needs_is_left_out(plan):
    first = next(name for name in plan.taps if name.startswith("stages."))
    part = cut(plan, [first])
    assert [*part.taps] == [first] and 0 < len(part.ops) < len(plan.ops)
    assert not any(name.startswith("head.") for name in part.parameters)
    assert [block.name for block in part.blocks] == [first]
    assert cut(plan, plan.taps) == plan


@pytest.mark.parametrize("outputs", [["stem"], ["pool"], ["logits", "stem"]])
def test_values_are_those_of_the_whole_network(outputs, plan):
    params, (x, *_) = networks.drawn(plan)
    part = cut(plan, outputs)
    some = {name: params[name] for name in part.parameters}
    found = nfspec.reference.forward(part, some, x)
    whole = nfspec.reference.forward(plan, params, x)
    for name in outputs:
        np.testing.assert_array_equal(found[name], whole[name])


@pytest.mark.parametrize("name", nfspec.variants())
def test_features_halve_or_keep_their_sides(name):
    plan = nfspec.resolve(nfspec.load(name))
    strides = [feature.stride for feature in plan.features]
    assert strides == sorted({*strides}) and plan.features[-1].name == "features"
    for feature in plan.features:
        tap = plan.tap_info[feature.name]
        assert (tap.stride, tap.channels) == (feature.stride, feature.channels)
