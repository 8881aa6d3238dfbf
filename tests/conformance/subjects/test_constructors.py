"""Networks that are cut down, as the constructors of real implementations make them."""

from dataclasses import replace

import pytest

from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.language.loader import load
from nfspec.weights.timm import timm_shapes

import standin


# timm's constructor makes each of these from a `NfCfg`.
@pytest.mark.parametrize("name", ["timm/test_nfnet", "timm/nf_resnet26", "timm/nf_ecaresnet26"])
def test_timm_makes_the_cut_network(name):
    nfnet = standin.timm.models.nfnet
    plan = reduced_plan(load(name))
    cfg = nfnet.model_cfgs[name.removeprefix("timm/")]
    changes = {
        "depths": tuple(sum(row.stage == s for row in plan.blocks) for s in range(4)),
        "channels": tuple(row.out_channels for row in plan.blocks if row.index == 0),
        "stem_chs": plan.tap_info["stem"].channels,
        "group_size": cfg.group_size and 8,
    }
    changes["num_features"] = plan.tap_info["features"].channels if cfg.num_features else 0
    model = nfnet.NormFreeNet(replace(cfg, **changes), num_classes=10, device="meta")
    theirs = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert theirs == {key: tuple(shape) for key, shape in timm_shapes(plan).items()}
