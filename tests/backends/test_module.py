"""A network as PyTorch's users treat a module."""

import copy
import pickle

import keras
import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError

from .small import DROPS, SPEC, batches, compiles, small_params, small_plan, small_spec

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="on PyTorch alone")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def compiled(text=SPEC, **how):
    return nfspec.compile(small_spec(text), "torch", small_params(), **how)


def images(torch):
    return torch.tensor(batches(1)[0])


def drops(model, x):
    """True if two calls differ, as they do with dropout."""
    return bool((model(x) != model(x)).any())


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_train_and_eval_rule(torch, dtype):
    model, x = compiled(DROPS, dtype=dtype), images(torch)
    assert not drops(model, x)  # as a network starts
    model.train()
    assert drops(model, x)
    assert not drops(lambda x: model(x, training=False), x)
    model.eval()
    assert not drops(model, x)
    assert drops(lambda x: model(x, training=True), x)


def test_train_reaches_a_network_within_a_module(torch):
    model, x = compiled(DROPS), images(torch)
    outer = torch.nn.Sequential(model, torch.nn.Linear(10, 3))
    outer.train()
    assert drops(outer, x)
    outer.eval()
    assert not drops(outer, x)

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, x):
            return self.inner(x)

    wrapped = Outer()
    assert not drops(wrapped, x)
    wrapped.train()
    assert drops(wrapped, x)


def test_fit_and_predict_leave_a_network_that_does_not_drop(torch):
    model, x = compiled(DROPS), images(torch)
    model.compile("sgd", "mse")
    model.fit(x.numpy(), np.zeros((len(x), 10)), batch_size=4, verbose=0)
    assert not drops(model, x)
    first, second = (model.predict(x.numpy(), verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_loop_of_ones_own_is_seeded_by_pytorch(torch):
    model, x = compiled(DROPS).train(), images(torch)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_gradients_of_checkpointed_activations_are_those_of_the_draws(torch):
    from torch.utils.checkpoint import checkpoint

    model, x, gradients = compiled(DROPS).train(), images(torch), []
    for call in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        torch.manual_seed(0)
        model.zero_grad()
        call(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_parameters_are_the_plans_whatever_was_made_before(torch):
    first, second = compiled(DROPS), nfspec.compile(small_spec(DROPS), "torch")
    assert set(dict(first.named_parameters())) == set(small_plan().parameters)
    assert set(first.state_dict()) == set(small_plan().parameters)
    assert all(p.requires_grad and p.is_floating_point() for p in first.parameters())
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(images(torch)), first(images(torch)))


def test_agc_over_all_parameters(torch):
    model, x = compiled(DROPS).train(), images(torch)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    from nfspec.backends.torch import agc

    agc(small_plan(), optimizer, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(x).square().sum().backward()
    optimizer.step()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert "head.fc.kernel" in moved and "stem.conv0.kernel" in moved


@pytest.mark.parametrize(
    "how", [{}, {"folded": True}, {"plain": True}, {"dtype": "mixed_bfloat16"}]
)
def test_functional_call_uses_what_it_is_given(torch, how):
    model, x = compiled(**how), images(torch)
    params = {name: p.detach() for name, p in model.named_parameters()}
    call = torch.func.functional_call
    assert torch.equal(call(model, params, (x,)), model(x))
    zeros = {name: torch.zeros_like(p) for name, p in params.items()}
    assert not call(model, zeros, (x,)).any()
    assert model(x).any()


def test_gradients_of_each_image_by_vmap(torch):
    model, x = compiled(), images(torch)[:3]
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, image):
        return torch.func.functional_call(model, params, (image[None],)).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, x)
    for i, image in enumerate(x):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        for name, p in model.named_parameters():
            # Sums over some hundred pixels, in another order.
            near = 1e-4 * p.grad.norm() + 1e-6
            assert (gradients[name][i] - p.grad).norm() <= near, name


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
def test_another_dtype_is_refused_in_a_sentence(torch, change):
    model = compiled()
    with pytest.raises(InputError, match=r"parameters cannot be made .*; use nfspec\.compile"):
        getattr(model, change)()
    with pytest.raises(InputError, match="parameters cannot be made"):
        getattr(torch.nn.Sequential(model), change)()
    assert model(images(torch)).dtype is torch.float32
    model.float().to("cpu").share_memory()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), keras.models.clone_model]
)
def test_copies_keep_their_plan(torch, copied):
    model = compiled(DROPS)
    duplicate = copied(model)
    assert duplicate.plan == model.plan
    duplicate.set_weights(model.get_weights())
    x = images(torch)
    assert torch.equal(duplicate(x), model(x))
    assert torch.allclose(nfspec.fold(duplicate)(x), model(x), atol=1e-5)


def test_deep_copies_keep_the_mode_and_what_is_frozen(torch):
    model = compiled(DROPS).train()
    model.get_parameter("stem.conv0.kernel").requires_grad_(False)
    duplicate = copy.deepcopy(model)
    assert duplicate.training
    assert not duplicate.get_parameter("stem.conv0.kernel").requires_grad
    assert duplicate.get_parameter("head.fc.kernel").requires_grad


def test_state_dicts_are_contiguous_and_safetensors_takes_them(torch, tmp_path):
    """As PyTorch's own layers have them, before and after a step, loaded, copied and folded."""
    from safetensors.torch import load_file, save_file

    model = compiled()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(2, 16, 16, 3)).sum().backward()
    assert all(p.grad.is_contiguous() for p in model.parameters())
    optimizer.step()
    again = compiled()
    again.load_state_dict(model.state_dict())
    for one in (model, again, copy.deepcopy(model), nfspec.fold(model)):
        assert all(value.is_contiguous() for value in one.state_dict().values())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for name, value in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(value, model.state_dict()[name])
    # nfspec reads the file as its own.
    params = nfspec.weights.load(tmp_path / "model.safetensors", model.plan)
    assert list(params) == list(model.plan.parameters)


@pytest.fixture
def group(torch):
    """One process that is a group of its own."""
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    "how", ["DistributedDataParallel", pytest.param("compile", marks=compiles)]
)
def test_train_and_eval_reach_a_wrapped_network(torch, group, how):
    model, x = compiled(DROPS), images(torch)
    if how == "compile":
        wrapped, prefix = torch.compile(model, backend="eager"), "_orig_mod."
    else:
        wrapped, prefix = torch.nn.parallel.DistributedDataParallel(model), "module."
    assert not drops(wrapped.eval(), x)
    assert drops(wrapped.train(), x)
    assert not drops(wrapped.eval(), x)
    assert set(wrapped.state_dict()) == {prefix + name for name in model.plan.parameters}
    again = compiled(DROPS)
    again.load_state_dict({n.removeprefix(prefix): v for n, v in wrapped.state_dict().items()})
