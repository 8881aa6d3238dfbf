"""Parameters of native objects under their canonical names, to the bit."""

import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError, WeightError

NETWORKS = ("two-attentions", "biased", "timm", "final-conv", "one-channel")


def drawn(plan):
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(each.shape).astype(np.float32)
        for name, each in plan.parameters.items()
    }


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (np.float32, value.shape), name
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("to", ["torch", "flax", "mlx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_given_comes_back_and_goes_into_a_file(name, to, plan_of, tmp_path):
    plan = plan_of(name)
    params = drawn(plan)
    found = nfspec.native_params(nfspec.native(plan, to, params=params), to)
    same(found, params)
    nfspec.weights.save(tmp_path / "a.safetensors", plan, found)
    same(nfspec.weights.load(tmp_path / "a.safetensors", plan), params)


def test_a_state_dict_is_as_good_as_its_module_and_copies_are_returned(plan_of):
    import torch

    plan = plan_of("plain")
    params = drawn(plan)
    model = nfspec.native(plan, "torch", params=params)
    found = nfspec.native_params(model.state_dict(), "torch")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    same(found, params)


def test_halves_are_widened_and_what_float32_cannot_hold_is_refused(plan_of):
    import torch

    plan = plan_of("plain")
    model = nfspec.native(plan, "torch", params=drawn(plan)).to(torch.bfloat16)
    wide = {name: value.float() for name, value in model.state_dict().items()}
    same(nfspec.native_params(model, "torch"), nfspec.native_params(wide, "torch"))
    with pytest.raises(WeightError, match=r"head\.fc\.bias: .*float32 cannot hold"):
        nfspec.native_params({"head.fc.bias": torch.full((3,), 0.1).double() / 3}, "torch")


@pytest.mark.parametrize("to", ["jax", "numpy"])
def test_functions_have_no_parameters(to):
    with pytest.raises(InputError, match="no parameters of its own; they are a dict"):
        nfspec.native_params(None, to)
