"""The target `torch`: the same network, and what users of PyTorch expect of a module."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import nfspec
from nfspec import reference
from nfspec.conformance.compare import bounds, distance
from nfspec.generation.targets import target_of
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import expected
from .torch_models import canonical, file_of, named, native, nchw, ours

TORCH = target_of("torch")
IDIOMS = "two-attentions"  # the network for what does not depend on the network


@pytest.fixture(scope="module")
def idioms(plan_of):
    """A model in inference, images of odd sides, and its logits."""
    plan = plan_of(IDIOMS)
    params, images = networks.drawn(plan)
    model = native(plan, params).eval()
    x = nchw(images[0])
    with torch.no_grad():
        return model, x, model(x)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    params, cases = expected(plan)
    model = native(plan, params)
    for images, exact, bound in cases:
        assert distance(TORCH.logits(model, images), exact) <= bound


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_parameters_come_back_to_the_bit(name, plan_of):
    plan = plan_of(name)
    params, _ = networks.drawn(plan)
    back = named(canonical(native(plan, params)))
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[key], value) for key, value in params.items())


@pytest.mark.parametrize("name", ["two-attentions", "biased", "unbiased", "max-pool"])
def test_gradients_are_those_of_the_reference(name, plan_of, derivatives):
    images, targets, rows = derivatives(name)
    plan = plan_of(name)
    model = native(plan, networks.drawn(plan)[0]).eval()
    nn.functional.cross_entropy(model(nchw(images)), torch.from_numpy(targets)).backward()
    grads = named({k: ours(k, p.grad.numpy()) for k, p in model.named_parameters()})
    for key, (exact, bound) in rows.items():
        assert distance(grads[key], exact) <= bound, key


def test_maps_are_those_of_the_reference(plan_of):
    for name in ("two-attentions", "max-pool", "final-conv"):
        plan = plan_of(name)
        params, batches = networks.drawn(plan)
        model = native(plan, params).eval()
        with torch.no_grad():
            features, maps = model.forward_intermediates(nchw(batches[0]))
        taps = reference.forward(plan, params, batches[0])
        last = [row for row in plan.blocks if row.stage == 0][-1]
        bound = bounds(plan, params, batches[0], taps)
        for tap, value in {last.name: maps[1], "features": features}.items():
            assert distance(value.permute(0, 2, 3, 1).numpy(), taps[tap]) <= bound[tap], tap
        for info, value in zip(model.feature_info, maps, strict=True):
            side = -(-batches[0].shape[1] // info["reduction"])
            assert value.shape[1] == info["num_chs"] and value.shape[2] == side


@pytest.mark.parametrize("name", ["two-attentions", "timm"])
def test_clipping_is_the_plans(name, plan_of):
    plan = plan_of(name)
    params, _ = networks.drawn(plan)
    model = native(plan, params)
    rng = np.random.default_rng(3)
    grads = {}
    for key, p in model.named_parameters():
        p.grad = torch.tensor(0.03 * rng.standard_normal(p.shape), dtype=torch.float32)
        grads[key] = ours(key, p.grad.numpy().copy())
    file_of(model).clip_gradients_(model)
    after = named({key: ours(key, p.grad.numpy()) for key, p in model.named_parameters()})
    clipped = 0
    for key, rule in clip_rules(plan).items():
        gradient = named(grads)[key].astype(np.float64)
        exact, _ = clip(gradient, params[key].astype(np.float64), rule)
        clipped += not np.array_equal(exact, gradient)
        # Two norms, a quotient and a product: rounding of sums of at most 2**14 squares.
        assert np.abs(after[key] - exact).max() <= 2.0**-18 * np.abs(exact).max(), key
    assert clipped > len(params) // 2


def test_initial_values_have_the_plans_spread(plan_of):
    plan = plan_of("biased")
    torch.manual_seed(0)
    values = named(canonical(native(plan)))
    for key, parameter in plan.parameters.items():
        value, init = values[key], parameter.init
        if init.kind == "constant":
            assert np.all(value == np.float32(init.value)), key
        elif value.size > 200:
            spread = {"uniform": 3**-0.5, "truncated_normal": 0.8796}.get(init.kind, 1.0)
            # The standard error of a standard deviation is 1 / sqrt(2 n); five of them.
            assert abs(value.std() / (spread * init.value) - 1) < 5 / (2 * value.size) ** 0.5, key


def test_drops_are_the_plans(plan_of):
    plan = plan_of("biased")
    model = native(plan, networks.drawn(plan)[0], drop_rate=0.0)
    rates = [block.drop_rate for stage in model.stages for block in stage.blocks]
    assert rates == [row.drop_rate for row in plan.blocks]
    block = model.train().stages[-1].blocks[-1]
    x = torch.randn(1, 24, 8, 8, generator=torch.manual_seed(0)).repeat(4000, 1, 1, 1)
    shortcut, kept = x[0], block.eval()(x[:1])[0] - x[0]
    residuals = block.train()(x) - shortcut
    dropped = residuals.abs().amax((1, 2, 3)) == 0
    assert abs(dropped.float().mean() - 0.5) < 5 * 0.5 / 4000**0.5
    gap = (residuals[~dropped] - 2 * kept).abs().max()
    assert gap <= 2.0**-20 * x.abs().max() * 8
    assert native(plan, drop_path_rate=0.0).stages[-1].blocks[-1].drop_rate == 0


def test_the_same_spec_gives_the_same_bytes(plan_of):
    plan = plan_of(IDIOMS)
    assert nfspec.generate(plan, to="torch") == nfspec.generate(plan, to="torch")


def test_a_file_needs_pytorch_alone(plan_of, tmp_path):
    plan = plan_of(IDIOMS)
    params, batches = networks.drawn(plan)
    (tmp_path / "net.py").write_text(nfspec.generate(plan, to="torch"))
    nfspec.weights.save(tmp_path / "w.safetensors", plan, params)
    np.save(tmp_path / "x.npy", batches[0])
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import net, numpy, torch\n"
        "model = net.NFNet().eval()\n"
        "net.load_weights(model, 'w.safetensors')\n"
        "x = torch.from_numpy(numpy.load('x.npy')).permute(0, 3, 1, 2)\n"
        "numpy.save('y.npy', model(x).detach().numpy())\n"
        "assert not {'nfspec', 'keras', 'timm', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    assert np.array_equal(
        np.load(tmp_path / "y.npy"), TORCH.logits(native(plan, params), batches[0])
    )


def test_files_pass_ruff_and_mypy(plan_of, tmp_path):
    paths = []
    for name in ("two-attentions", "timm", "mixed-padding", "unbiased", "biased"):
        paths.append(str(tmp_path / f"{name.replace('-', '_')}.py"))
        (tmp_path / paths[-1]).write_text(nfspec.generate(plan_of(name), to="torch"))
    ruff = ["ruff", "check", "--isolated", "--line-length", "100", "--select", "E,F,I,UP,B,SIM,C4"]
    for command in (ruff, ["mypy", "--config-file", "", "--follow-imports", "skip"]):
        run = [sys.executable, "-m", *command, *paths]
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_classifier(idioms):
    model = copy.deepcopy(idioms[0])
    model.reset_classifier(7)
    assert model(idioms[1]).shape == (2, 7)
    model.reset_classifier(0)
    pooled = model.forward_head(model.forward_features(idioms[1]), pre_logits=True)
    assert torch.equal(model(idioms[1]), pooled)
    assert pooled.shape == (2, model.num_features)


def test_other_classes_and_channels_from_the_start(plan_of):
    plan = plan_of(IDIOMS)
    params, batches = networks.drawn(plan)
    with pytest.warns(nfspec.weights.FitWarning) as caught:
        model = native(plan, params, classes=4, channels=1).eval()
    assert len(caught) == 2
    grey = nchw(batches[0])[:, :1]
    pooled = model.forward_head(model.forward_features(grey), pre_logits=True)
    old = native(plan, params).eval()
    same = old.forward_head(old.forward_features(grey.repeat(1, 3, 1, 1)), pre_logits=True)
    assert model(grey).shape == (2, 4)
    assert distance(pooled.detach().numpy(), same.detach().double().numpy()) < 1e-5
    assert native(plan, num_classes=0)(torch.zeros(2, 3, 33, 47)).ndim == 2


def test_an_option_that_the_class_lacks_is_a_sentence(plan_of):
    with pytest.raises(nfspec.InputError, match=r"NFNet takes .*did you mean \"drop_path_rate\""):
        native(plan_of(IDIOMS), drop_path=0.1)


def test_some_maps_alone(idioms):
    model, x, _ = idioms
    maps = model.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    assert [m.shape[1] for m in maps] == [model.feature_info[i]["num_chs"] for i in (0, 2)]


def test_checkpointing_changes_no_gradient(idioms):
    models = [copy.deepcopy(idioms[0]) for _ in range(2)]
    models[1].set_grad_checkpointing()
    for model in models:
        model(idioms[1]).square().sum().backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_parameter_groups(idioms):
    model = idioms[0]
    groups = model.parameter_groups(1e-4, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        listed = [names[id(p)] for p in group["params"]]
        assert {name.endswith("weight") for name in listed} == {group["weight_decay"] > 0}
    scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale["head.fc.bias"] == 1 and scale["stem.conv0.gain"] == 0.125
    assert scale["stages.1.blocks.0.conv0.weight"] == 0.5
    torch.optim.SGD(groups, lr=0.1)


def test_copies_and_pickles(idioms):
    model, x, logits = idioms
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), logits)
    twin = type(model)()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(x), logits)


def test_modules_are_what_tools_look_for(idioms):
    model = copy.deepcopy(idioms[0])
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == sum(
        "conv" in name and name.endswith("weight") for name in model.state_dict()
    )
    from torch.nn.utils import prune

    prune.l1_unstructured(convs[1], "weight", 0.5)
    assert not torch.equal(model(idioms[1]), idioms[2])


def test_channels_last_changes_nothing(idioms):
    model, x, logits = idioms
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    got = twin(x.contiguous(memory_format=torch.channels_last))
    assert distance(got.detach().numpy(), logits.double().numpy()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(idioms, dtype):
    model, x, logits = idioms
    twin = copy.deepcopy(model).to(dtype)
    narrow = twin(x.to(dtype))
    assert narrow.dtype == dtype
    with torch.autocast("cpu", dtype):
        mixed = model(x)
    # Rounding by `dtype` after each of about 30 operations.
    most = 30 * torch.finfo(dtype).eps
    for value in (narrow, mixed):
        assert distance(value.detach().double().numpy(), logits.double().numpy()) < most


def test_weights_are_standardised_in_float32(idioms):
    conv = copy.deepcopy(idioms[0].stem["conv0"]).bfloat16()
    wide = copy.deepcopy(conv).float().standardised()
    assert torch.equal(conv.standardised(), wide.bfloat16())


def test_functional_transforms(idioms):
    from torch.func import functional_call, grad, vmap

    model, x, _ = idioms
    params = dict(model.named_parameters())

    def loss(params, image):
        return functional_call(model, params, (image[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(params, x)
    model.zero_grad()
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        total = each[name].sum(0)
        assert (total - p.grad).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-12, name
    model.zero_grad(set_to_none=True)


def test_one_graph_for_the_compiler(plan_of):
    plan = plan_of("biased")  # it drops blocks and features in training
    params, batches = networks.drawn(plan)
    model = native(plan, params).train()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for images in batches[:2]:
        outputs = []
        for network in (model, compiled):
            torch.manual_seed(0)
            outputs.append(network(nchw(images)))
        assert torch.equal(*outputs)


@pytest.mark.parametrize(
    "name",
    [pytest.param("plain", marks=pytest.mark.slow), "max-pool", "timm"],  # less, and more
)
def test_exported_with_free_sizes(name, plan_of):
    from torch.export import Dim, export

    plan = plan_of(name)
    params, batches = networks.drawn(plan)
    model = native(plan, params).eval()
    free = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    program = export(model, (nchw(batches[1]),), dynamic_shapes=(free,)).module()
    for images in (*batches, np.concatenate([batches[0]] * 2)):
        with torch.no_grad():
            assert torch.equal(program(nchw(images)), model(nchw(images)))


@pytest.mark.slow
# PyTorch 2.13's own compiler uses what PyTorch deprecates, once in a process.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_compiled(idioms):
    model, x, logits = idioms
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    assert distance(compiled(x).detach().numpy(), logits.double().numpy()) < 1e-5
