"""A step on PyTorch is a few launches on a GPU, none of which waits for the GPU.

There is no GPU here: what a GPU would do with tensors of one shape together is done on the CPU, and
the operations of a step are counted and looked at.
"""

import os
from collections import Counter

import numpy as np
import pytest

import nfspec

if os.environ.get("KERAS_BACKEND") != "torch":
    pytest.skip("of PyTorch", allow_module_level=True)

import keras
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nfspec import compilation
from nfspec.backends.kernels import torch_steps
from nfspec.backends.optimizers import EMA, SGD
from nfspec.backends.torch import agc
from nfspec.plan.clipping import LEAST_GRADIENT_NORM, ClipRule

from .small import DROPS, small_spec

VIEWS = (
    "view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze",
    "detach", "alias", "split", "split_with_sizes", "unbind", "_unsafe_view", "as_strided",
    "_reshape_alias", "lift_fresh", "empty",
)  # fmt: skip
WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")
U = 2.0**-24


class Operations(TorchDispatchMode):
    """Counts operations that are launches on a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name not in VIEWS:
            self.counts[name] += 1
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Clipping of tensors of one shape together, as where each operation is a launch."""
    clip_sets = torch_steps.clip_sets
    monkeypatch.setattr(
        "nfspec.backends.kernels.torch.clip_all", lambda *given: clip_sets(*given, stacked=True)
    )


def network(depth):
    text = DROPS.replace("depth = [1]", f"depth = [{depth}]")
    assert depth == 1 or text != DROPS
    return small_spec(text)


def stepper(spec):
    """A network, its optimizer and gradients, after a first step."""
    plan = nfspec.resolve(spec)
    model = nfspec.compile(spec, "torch")
    optimizer = EMA(compilation.agc(plan, SGD(0.1, coupled_weight_decay=1e-2)), decay=0.9)
    variables = model.trainable_variables
    optimizer.build(variables)
    torch.manual_seed(0)
    gradients = [torch.randn_like(v.value) for v in variables]

    @torch.no_grad()
    def step():
        optimizer.apply([g.clone() for g in gradients], variables)

    step()
    return step, variables, optimizer


def launches(spec):
    step, variables, _ = stepper(spec)
    with Operations() as seen:
        step()
    return seen.counts - Counter(clone=len(variables)), len(variables)


def test_a_step_has_as_many_launches_for_many_blocks_as_for_few(as_on_a_gpu):
    spec = network(3)
    few, n = launches(spec)
    many, m = launches(network(9))
    assert m - n > 40 and many == few
    assert not any(name in few for name in WAITS)
    # Of each shape: weights and gradients stacked, two norms, a product. One update for each kind
    # of decay, and one copy of the clip fractions; the tensors are in lists.
    shapes = {p.shape for p in nfspec.resolve(spec).parameters.values()}
    assert few.total() < 5 * len(shapes) + 40
    assert many["_fused_sgd_"] == 2 and many["_foreach_copy_"] == 1


def rules_of(shapes):
    """Rules for shapes: by output, by element, and of the whole tensor."""
    kinds = []
    for shape in shapes:
        columns = tuple(range(len(shape) - 1))
        for axes in {columns or None, (), None}:
            kept = [1 if axes is None or a in axes else n for a, n in enumerate(shape)]
            kinds.append((shape, ClipRule(axes, int(np.prod(kept)), 0.5, 1e-3)))
    return kinds


def exact(gradient, parameter, rule):
    g, w = (np.asarray(x, np.float64) for x in (gradient, parameter))
    axes = tuple(range(g.ndim)) if rule.axes is None else rule.axes
    of_g, of_w = (np.sqrt((x**2).sum(axes, keepdims=True)) for x in (g, w))
    limit = rule.limits(of_w)
    clipped = of_g > limit
    factor = np.where(clipped, limit / np.maximum(of_g, LEAST_GRADIENT_NORM), 1.0)
    return g * factor, clipped.mean()


def test_tensors_of_one_shape_are_clipped_together_as_each_by_itself():
    shapes = [(3, 3, 4, 6), (3, 3, 4, 6), (16, 5), (6,), (6,), (6,), (), (), (16, 5)]
    random = np.random.default_rng(0)
    kinds = [kind for kind in rules_of(shapes) for _ in range(2)]
    drawn = [
        [random.standard_normal(shape).astype(np.float32) * size for shape, _ in kinds]
        for size in (0.7, 1.0)
    ]
    drawn[0][0][..., 0] = np.nan  # one unit, which is left as it is
    rules = [rule for _, rule in kinds]
    gradients, parameters = ([torch.tensor(a) for a in arrays] for arrays in drawn)
    got, fractions = torch_steps.clip_sets(gradients, parameters, rules, stacked=True)
    assert sum(0.0 < float(f) < 1.0 for f in fractions) > 5
    for gradient, weight, rule, y, fraction in zip(*drawn, rules, got, fractions, strict=True):
        wanted, share = exact(gradient, weight, rule)
        assert y.shape == gradient.shape and float(fraction) == np.float32(share)
        # Each norm is of at most 108 positive squares, halved by the root: 54 u at the worst, two
        # of them, and four roundings.
        np.testing.assert_allclose(y.numpy(), wanted, rtol=112 * U, atol=0.0)


def test_the_hook_copies_what_was_clipped_together_into_the_gradients(as_on_a_gpu):
    spec = network(3)
    plan = nfspec.resolve(spec)
    results = []
    for plain in (False, True):
        model = nfspec.compile(spec, "torch", nfspec.init(plan))
        held = {v.canonical: v.value for v in model.trainable_variables}
        torch.manual_seed(0)
        for parameter in held.values():
            parameter.grad = torch.randn_like(parameter)
        before = {name: p.grad for name, p in held.items()}
        optimizer = torch.optim.SGD(held.values(), lr=0.1)
        clipping = agc(plan, optimizer, model, plain=plain)
        optimizer.step()
        assert all(p.grad is before[name] for name, p in held.items())
        results.append(({n: p.grad.numpy() for n, p in held.items()}, clipping.clip_fraction))
    assert results[0][1] == results[1][1] and max(results[0][1].values()) > 0.0
    for name, gradient in results[0][0].items():
        np.testing.assert_allclose(gradient, results[1][0][name], rtol=500 * U, atol=0.0)


@pytest.mark.parametrize("decay", [0.9, 0.99999])
def test_averages_start_as_the_parameters_whoever_looks_on(decay):
    """By a copy on a CPU; by arithmetic where the host does not know which step it is."""
    spec = network(1)
    kept = []
    for watched in (False, True):
        model = nfspec.compile(spec, "torch", nfspec.init(nfspec.resolve(spec)))
        optimizer = EMA(SGD(0.1), decay=decay)
        optimizer.build(model.trainable_variables)
        torch.manual_seed(0)
        for _ in range(3):
            gradients = [torch.randn_like(v.value) for v in model.trainable_variables]
            with torch.no_grad(), Operations() if watched else torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
        kept.append([average.numpy() for _, average in optimizer.averages])
    for a, b in zip(*kept, strict=True):
        np.testing.assert_array_equal(a, b)


class Refuses(TorchDispatchMode):
    """Refuses operations that wait for the device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation.overloadpacket.__name__ not in WAITS, operation
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("how", ["Keras's step", "an own loop"])
def test_nothing_in_a_step_waits_for_the_device(how, as_on_a_gpu):
    spec = network(1)
    plan = nfspec.resolve(spec)
    x, y = torch.randn(2, 32, 32, 3), torch.tensor([0, 1])
    if how == "an own loop":
        model = nfspec.compile(spec, "torch").train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        agc(plan, optimizer, model)
        step = _own(model, optimizer, x, y)
    else:
        model = nfspec.compile(spec, "torch")
        optimizer = EMA(compilation.agc(plan, SGD(0.1, coupled_weight_decay=1e-2)))
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
        optimizer.build(model.trainable_variables)
        labels = torch.nn.functional.one_hot(y, 10).float()
        step = lambda: model.train_step((x, labels, None))  # noqa: E731
    step()
    with Refuses():
        step()


IMAGES = 5  # no kernel begins with an axis of this length


class Layouts(TorchDispatchMode):
    """Notes the images that convs are given, and operations that copy images."""

    def __init__(self):
        super().__init__()
        self.images, self.copies = [], Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            given = args[:1] if name == "convolution" else args[:2]
            self.images += [x.is_contiguous(memory_format=torch.channels_last) for x in given]
        if name in ("clone", "contiguous", "copy_", "_to_copy") and args[0].shape[:1] == (IMAGES,):
            self.copies[name] += args[0].ndim == 4
        return operation(*args, **(kwargs or {}))


def test_convs_on_a_gpu_are_given_images_in_channels_last_without_copies(monkeypatch):
    """As cuDNN wants them, forwards and backwards; strides are those of the CPU's memory, by the
    kernels that a GPU takes."""
    for name in ("eager_on_cpu", "watched"):
        monkeypatch.setattr(f"nfspec.backends.kernels.torch.{name}", lambda x: False)
    model = nfspec.compile(nfspec.load("nfnet-nano"), "torch").train()
    with Layouts() as seen:
        model(torch.randn(IMAGES, 33, 32, 3)).sum().backward()
    convs = sum(hasattr(layer, "standardised_kernel") for layer in model.layers)
    assert len(seen.images) == 3 * convs and all(seen.images)
    assert not +seen.copies


def _own(model, optimizer, x, y):
    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


@pytest.mark.slow  # ten seconds
def test_a_network_in_training_is_one_graph_to_the_compiler():
    model = nfspec.compile(network(1), "torch").train()
    report = torch._dynamo.explain(model)(torch.randn(2, 32, 32, 3))
    assert (report.graph_count, report.graph_break_count) == (1, 0), report.break_reasons
