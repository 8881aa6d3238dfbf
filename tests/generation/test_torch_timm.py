"""Calls of timm's users give timm's shapes, and timm's weights its logits."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import nfspec
from nfspec.weights.timm import timm_shapes

import networks
import standin
from .torch_models import canonical, file_of, named, native

PROGRAM = """
import sys
import timm, torch
import nfspec

for variant in sys.argv[1:]:
    name = variant.partition("/")[2]
    with torch.device("meta"):
        theirs = timm.create_model(name).eval()
        ours = nfspec.native(nfspec.load(variant), "torch").eval()
        x = torch.empty(2, 3, 65, 96)
    infos = [(info["num_chs"], info["reduction"]) for info in theirs.feature_info]
    assert infos == [(info["num_chs"], info["reduction"]) for info in ours.feature_info], variant
    for arguments in ({}, {"indices": [0, 2], "intermediates_only": True}):
        maps = [model.forward_intermediates(x, **arguments) for model in (theirs, ours)]
        shapes = [[t.shape for t in (m if arguments else (m[0], *m[1]))] for m in maps]
        assert shapes[0] == shapes[1], (variant, shapes)
    assert theirs.forward_features(x).shape == ours.forward_features(x).shape
    with torch.device("meta"):
        changed = [timm.create_model(name, num_classes=0, in_chans=1).eval(),
                   nfspec.native(nfspec.load(variant), "torch", num_classes=0, in_chans=1).eval()]
    assert len({model(x[:, :1]).shape for model in changed}) == 1
    for model in changed:
        model.reset_classifier(7)

torch.manual_seed(0)
theirs = timm.create_model("test_nfnet").eval()
ours = nfspec.native(nfspec.load("timm/test_nfnet"), "torch").eval()
file = sys.modules[type(ours).__module__]
ours.load_state_dict(file.from_timm(ours, theirs.state_dict()))
x = torch.randn(2, 3, 65, 48)
with torch.no_grad():
    gap = (theirs(x) - ours(x)).norm() / theirs(x).norm()
assert gap < 1e-5, gap
"""


@pytest.mark.slow
def test_shapes_are_those_of_timm():
    variants = ["test_nfnet", "dm_nfnet_f0", "eca_nfnet_l0", "nf_regnet_b0", "nf_resnet26"]
    path = os.pathsep.join([standin.FOLDER, *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *(f"timm/{name}" for name in variants)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "variant",
    [
        "timm/test_nfnet",
        "timm/dm_nfnet_f0",
        "timm/eca_nfnet_l0",
        "timm/nf_regnet_b0",
        "timm/nf_seresnet26",
        "timm/nf_ecaresnet26",
    ],
)
def test_state_dicts_of_timm_load(variant):
    plan = nfspec.resolve(nfspec.load(variant))
    with torch.device("meta"):
        model = native(plan)
        state = {k: torch.empty(shape) for k, shape in timm_shapes(plan).items()}
    renamed = file_of(model).from_timm(model, state)
    assert {k: v.shape for k, v in renamed.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_files_of_timm_load(tmp_path):
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    params, _ = networks.drawn(plan)
    nfspec.weights.to_timm_file(tmp_path / "timm.safetensors", plan, params)
    model = native(plan)
    file_of(model).load_weights(model, str(tmp_path / "timm.safetensors"))
    back = named(canonical(model))
    assert all(np.array_equal(back[key], value) for key, value in params.items())
