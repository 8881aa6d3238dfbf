"""Files of PyTorch's ExportedProgram, and what is in them."""

import numpy as np
import pytest

import nfspec
from nfspec.backends.exporters import torch as format_torch
from nfspec.backends.exporters.settings import Network, Settings
from nfspec.errors import InputError

IDIOMS = "two-attentions"  # the network for what does not depend on the network


@pytest.mark.slow  # to trace a network takes seconds
@pytest.mark.parametrize("name", [IDIOMS, "mixed-padding", "max-pool", "short-kernels", "biased"])
def test_a_file_is_proved_and_proved_again(name, small, tmp_path):
    plan, params = small(name)
    path = tmp_path / "a.pt2"
    proof = nfspec.export(plan, "torch", path, params, outputs=[*plan.taps])
    assert proof.same and proof.sizes == 6
    assert nfspec.verify(path).same


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["stem", "stages.0.blocks.0", "features", "pool"])
def test_no_weight_is_written_that_no_output_needs(tap, small, tmp_path):
    plan, params = small("plain")
    path = tmp_path / "a.pt2"
    choices = {"size": (33, 46), "batch": 1, "outputs": [tap]}
    assert nfspec.export(plan, "torch", path, params, **choices).same
    read = format_torch.read(path)
    held = format_torch._program(path)[0].state_dict
    assert len(held) == len(read.params) < len(nfspec.fold(plan, params).params)


@pytest.mark.slow
def test_choices_and_weights_come_back(small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.pt2"
    choices = {"size": (33, 40), "batch": 2, "layout": "nchw", "preprocess": True}
    proof = nfspec.export(plan, "torch", path, params, **choices)
    assert proof.same and proof.facts.nodes["aten.conv2d"] > 10
    read = format_torch.read(path)
    assert read.network.settings == Settings(**choices)
    folded = nfspec.fold(plan, params).params
    assert read.params.keys() == folded.keys()
    for name, value in folded.items():
        np.testing.assert_array_equal(read.params[name], value)


@pytest.mark.slow
def test_a_mistake_is_refused(small, tmp_path, monkeypatch):
    """A mean that is a hundredth off."""
    plan, params = small("plain")
    made = format_torch.module_of(Network(plan, params, Settings()))
    monkeypatch.setattr(made.network, "forward_head", lambda x, **more: x.mean((2, 3)) * 1.01)
    monkeypatch.setattr(format_torch, "module_of", lambda network: made)
    with pytest.raises(nfspec.ProofError):
        nfspec.export(plan, "torch", tmp_path / "a.pt2", params, size=(33, 40), batch=1)
    assert not list(tmp_path.iterdir())


def test_what_is_not_offered(small, tmp_path):
    plan, params = small("plain")
    with pytest.raises(InputError, match="is f32"):
        nfspec.export(plan, "torch", tmp_path / "a.pt2", params, dtype="f16")


@pytest.mark.slow  # to import PyTorch takes seconds
def test_a_file_of_others(tmp_path):
    (tmp_path / "a.pt2").write_text("no archive")
    with pytest.raises(InputError, match=r"not a \.pt2 file"):
        nfspec.verify(tmp_path / "a.pt2")


@pytest.mark.slow  # it compiles for half a minute
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler uses what its next version will not have
def test_native_code_is_proved_as_it_is_written_and_not_loaded_later(small, tmp_path):
    plan, params = small(IDIOMS)
    path = tmp_path / "a.aoti"
    proof = nfspec.export(plan, "aotinductor", path, params, size=(33, 46), batch=2)
    assert proof.same and [file.name for file in tmp_path.iterdir()] == ["a.aoti"]
    with pytest.raises(InputError, match="native code, which runs as it is loaded"):
        nfspec.verify(path)


@pytest.mark.parametrize("choices", [{}, {"size": (33, 46)}, {"batch": 2}])
def test_native_code_is_for_one_size(choices, small, tmp_path):
    plan, params = small("plain")
    with pytest.raises(InputError, match="--size 256 --batch 1"):
        nfspec.export(plan, "aotinductor", tmp_path / "a.aoti", params, **choices)
