"""Groups of parameters for optimizers."""

import pytest

import nfspec
from nfspec.errors import InputError
from nfspec.training.groups import groups

import networks


def test_every_parameter_is_in_one_group():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    found = groups(plan, layer_decay=0.5)
    names = [name for group in found for name in group.names]
    assert sorted(names) == sorted(plan.parameters)
    assert [group.part for group in found][::2] == [
        "stem",
        *(f"stages.{s}" for s in range(4)),
        "head",
    ]
    assert [group.lr_scale for group in found][::2] == [2.0**-n for n in range(5, -1, -1)]
    of = {name: group for group in found for name in group.names}
    assert of["final_conv.kernel"].part == of["head.fc.bias"].part == "head"
    decays = {q.role: of[name].weight_decay for name, q in plan.parameters.items()}
    assert decays["kernel"] == decays["head"] == plan.recipe.weight_decay == 2e-5
    assert {decays[role] for role in ("gain", "bias", "skip_gain")} == {0.0}


@pytest.mark.parametrize("name", ["two-attentions", "max-pool", "no-shortcut-conv"])
def test_networks_of_all_forms(name, tmp_path):
    plan = nfspec.resolve(networks.network(name, tmp_path))
    found = nfspec.groups(plan, weight_decay=0.1)
    assert sorted(n for group in found for n in group.names) == sorted(plan.parameters)
    assert {group.lr_scale for group in found} == {1.0}
    for group in found:
        for each in group.names:
            decays = plan.parameters[each].role in ("kernel", "head")
            assert group.weight_decay == (0.1 if decays else 0.0), each
            assert each.startswith(group.part) or group.part == "head"


def test_what_cannot_be():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    with pytest.raises(InputError, match=r"has no \[recipe\]; give weight_decay"):
        groups(plan)
    for wrong in ({"layer_decay": 0.0}, {"layer_decay": 1.5}, {"weight_decay": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            groups(plan, **{"weight_decay": 0.0, **wrong})
    with pytest.raises(InputError, match="plan: "):
        groups("nfnet-f0")
