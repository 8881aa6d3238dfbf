"""ExecuTorch's programs in its runtime, and what is in them."""

import numpy as np
import pytest

import nfspec
from nfspec.backends.exporters import executorch
from nfspec.backends.exporters.settings import Settings
from nfspec.conformance.cases.weights import trial_params
from nfspec.errors import InputError

import networks

IDIOMS = "two-attentions"  # the network for what does not depend on the network

pytestmark = pytest.mark.slow  # to lower a network takes seconds


@pytest.fixture(scope="module", autouse=True)
def installed():
    pytest.importorskip("executorch")


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_file_is_proved_and_proved_again(name, small, tmp_path):
    plan, params = small(name)
    path = tmp_path / "a.pte"
    proof = nfspec.export(plan, "executorch", path, params, outputs=[*plan.taps])
    assert proof.same and proof.sizes == 6 and nfspec.verify(path).same
    assert proof.facts.nodes["executorch_call_delegate"] > 0


@pytest.mark.parametrize("kind", sorted(nfspec.plan.activations.FUNCTIONS))
def test_every_activation(kind, tmp_path):
    one = {"stages.depth": [1], "stages.width": [8], "stages.stride": [1], "stages.group_width": 4}
    kinds = {"activation.kind": kind, "se.activation": kind}
    plan = nfspec.resolve(nfspec.load("nfnet-nano", one | kinds))
    path = tmp_path / "a.pte"
    assert nfspec.export(plan, "executorch", path, trial_params(plan, 0), size=(17, 14)).same


def test_choices_and_weights_come_back(small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.pte"
    choices = {"size": (33, 40), "batch": 2, "layout": "nchw", "preprocess": True}
    assert nfspec.export(plan, "executorch", path, params, **choices).same
    read = executorch.read(path)
    assert read.network.settings == Settings(**choices)
    folded = nfspec.fold(plan, params).params
    assert read.params.keys() == folded.keys()
    for name, value in folded.items():
        np.testing.assert_array_equal(read.params[name], value)


def test_a_file_of_others(small, tmp_path):
    path = tmp_path / "a.pte"
    path.write_bytes(b"\0" * 200)
    with pytest.raises(InputError, match=r"not a \.pte file"):
        nfspec.verify(path)
    plan, params = small("plain")
    nfspec.export(plan, "executorch", path, params, size=(33, 40), force=True)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError):
        nfspec.verify(path)
