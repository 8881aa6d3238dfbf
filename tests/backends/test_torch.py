"""AGC in a training loop of PyTorch: closures, accumulated and scaled gradients."""

import os

import numpy as np
import pytest

import nfspec

if os.environ.get("KERAS_BACKEND") != "torch":
    pytest.skip("of PyTorch", allow_module_level=True)

import torch

from nfspec.backends.kernels import torch as kernels
from nfspec.backends.torch import agc

from .doors import GOLDEN, PLAN, SOME, door, some, torch_parameters
from .gradients import variables


def objective(held, gradients, scale=1.0):
    """A loss whose gradients are these, times the scale."""
    return scale * sum((torch.tensor(gradients[n]) * p).sum() for n, p in held.items())


def as_arrays(held):
    return {name: parameter.grad.numpy() for name, parameter in held.items()}


def assert_same(clipped, expected):
    for name in expected:
        np.testing.assert_array_equal(clipped[name], expected[name], name)


def test_parameters_without_gradient_or_of_no_optimizer_are_left_alone():
    gradients, params = some()
    held = torch_parameters(params, gradients)
    held[SOME[0]].grad = None
    optimizer = torch.optim.SGD([held[name] for name in SOME[:2]], lr=0.1)
    clipping = agc(PLAN, optimizer, held)
    optimizer.step()
    assert held[SOME[0]].grad is None
    assert clipping.clip_fraction == {SOME[1]: 1.0}
    held[SOME[1]].grad = None
    optimizer.step()
    assert clipping.clip_fraction == {}
    assert_same(as_arrays({n: held[n] for n in SOME[2:]}), {n: gradients[n] for n in SOME[2:]})


def test_what_needs_no_gradient_is_no_business_of_clipping():
    """Frozen layers and counters may be in the optimizer; a layer that is not frozen may not."""
    gradients, params = some()
    held = torch_parameters(params, gradients)
    frozen = torch.nn.Parameter(torch.ones(2, 3), requires_grad=False)
    counter = torch.nn.Parameter(torch.zeros(2, dtype=torch.int32), requires_grad=False)
    optimizer = torch.optim.SGD([*held.values(), frozen, counter], lr=0.1)
    agc(PLAN, optimizer, held)
    optimizer.step()
    assert_same(as_arrays(held), door(gradients, params))
    assert torch.equal(frozen, torch.ones(2, 3))
    frozen.requires_grad_(True)
    with pytest.raises(nfspec.InputError, match=r"does not have, of shapes \(2, 3\)"):
        optimizer.step()


def test_the_handle_ends_the_clipping():
    gradients, params = some()
    held = torch_parameters(params, gradients)
    optimizer = torch.optim.SGD(held.values(), lr=0.1)
    agc(PLAN, optimizer, held).remove()
    optimizer.step()
    assert_same(as_arrays(held), gradients)


def test_a_step_clips_each_parameter_once(monkeypatch):
    """A whole model is clipped, except for the head's kernel and frozen parameters."""
    model = nfspec.compile(GOLDEN.spec, "torch", GOLDEN.params)
    model.get_layer("stem_conv0").trainable = False
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = agc(PLAN, optimizer, model)
    (model(torch.tensor(GOLDEN["x"])) * 1e3).square().sum().backward()
    before = variables(model)["head.fc.kernel"].value.grad.clone()
    seen, clip_all = [], kernels.clip_all
    monkeypatch.setattr(kernels, "clip_all", lambda g, p, r: seen.extend(p) or clip_all(g, p, r))
    optimizer.step()
    assert len(seen) == len(set(map(id, seen))) == len(PLAN.parameters) - 4
    left = {"head.fc.kernel", *(f"stem.conv0.{local}" for local in ("kernel", "gain", "bias"))}
    assert set(handle.clip_fraction) == set(PLAN.parameters) - left
    assert torch.equal(variables(model)["head.fc.kernel"].value.grad, before)


@pytest.mark.parametrize("by", ["position", "name"])
def test_a_closure_runs_once_and_its_gradients_are_clipped(by):
    gradients, params = some()
    held, calls = torch_parameters(params), []
    optimizer = torch.optim.SGD(held.values(), lr=0.0)
    agc(PLAN, optimizer, held)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = objective(held, gradients)
        loss.backward()
        return loss

    loss = optimizer.step(closure) if by == "position" else optimizer.step(closure=closure)
    assert len(calls) == 1
    assert loss == objective(held, gradients)
    assert_same(as_arrays(held), door(gradients, params))


def test_every_evaluation_of_a_closure_is_clipped():
    """LBFGS evaluates several times a step, and sees clipped gradients each time."""
    gradients, params = some()
    held, calls = torch_parameters(params), []
    optimizer = torch.optim.LBFGS(held.values(), lr=1e-9, max_iter=3, tolerance_change=0)
    agc(PLAN, optimizer, held)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = objective(held, gradients)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(calls) == 3
    for name, clipped in door(gradients, params).items():  # parameters have hardly moved
        np.testing.assert_allclose(held[name].grad, clipped, rtol=1e-4)


def test_gradients_of_several_backward_passes_are_clipped_as_one():
    gradients, params = some()
    held = torch_parameters(params)
    optimizer = torch.optim.SGD(held.values(), lr=0.0)
    agc(PLAN, optimizer, held)
    for part in (3.0, -2.0):
        objective(held, gradients, part).backward()
    optimizer.step()
    for name, clipped in door(gradients, params).items():
        np.testing.assert_allclose(held[name].grad, clipped, rtol=1e-5)


@pytest.mark.parametrize("unscale", [False, True], ids=["", "unscale_"])
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_a_grad_scaler_changes_nothing(fused, unscale):
    """It hands fused optimizers scaled gradients, and unscales those of others before a step."""
    gradients, params = some()
    moved = []
    for enabled in (False, True):
        held = torch_parameters(params)
        optimizer = torch.optim.SGD(held.values(), lr=1.0, fused=fused)
        clipping = agc(PLAN, optimizer, held)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=enabled)
        scaler.scale(objective(held, gradients)).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        assert clipping.clip_fraction == dict.fromkeys(SOME[:5], 1.0)
        moved.append({name: p.detach().numpy() for name, p in held.items()})
    assert_same(*moved)
    assert not np.array_equal(moved[0]["head.fc.bias"], params["head.fc.bias"])


def test_scaled_gradients_too_small_for_float16_survive():
    gain = torch.nn.Parameter(torch.ones(16, dtype=torch.float16))
    optimizer = torch.optim.SGD([gain], lr=1.0, fused=True)
    agc(PLAN, optimizer, {"stem.conv0.gain": gain})
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(gain.grad.clone()))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    # 2^-26 is not a float16, and far below the bound.
    (scaler.scale(gain.float().sum()) * 2.0**-26).backward()
    scaler.step(optimizer)
    assert (seen[0] == 2.0**-10).all()


def test_a_grad_scaler_still_skips_steps_that_overflow():
    gradients, params = some()
    gradients["stem.conv0.gain"][0] = np.inf
    for fused in (False, True):
        held = torch_parameters(params)
        optimizer = torch.optim.SGD(held.values(), lr=1.0, fused=fused)
        agc(PLAN, optimizer, held)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        scaler.scale(objective(held, gradients)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2.0**15
        assert_same({name: p.detach().numpy() for name, p in held.items()}, params)


def test_mistakes_in_torch():
    _, params = some()
    held = torch_parameters(params)
    stranger = torch.nn.Parameter(torch.zeros(96, 3))
    optimizer = torch.optim.SGD([*held.values(), stranger], lr=0.1)
    with pytest.raises(nfspec.InputError, match=r"\(96, 3\); call agc with a module that has"):
        agc(PLAN, optimizer, held)
    with pytest.raises(nfspec.InputError, match="Linear has no parameters made by nfspec"):
        agc(PLAN, optimizer, torch.nn.Linear(2, 2))
    optimizer = torch.optim.SGD(held.values(), lr=0.1)
    agc(PLAN, optimizer, held)
    optimizer.add_param_group({"params": [stranger]})
    with pytest.raises(nfspec.InputError, match=r"\(96, 3\)"):
        optimizer.step()

    class Apex(torch.optim.SGD):
        def step(self, closure=None, grad_scaler=None):
            raise AssertionError("the hook refuses")

    optimizer = Apex(held.values(), lr=0.1)
    agc(PLAN, optimizer, held)
    with pytest.raises(nfspec.InputError, match="Apex unscales gradients inside its step"):
        optimizer.step(grad_scaler=torch.amp.GradScaler("cpu"))
