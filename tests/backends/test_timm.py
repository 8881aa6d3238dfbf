"""timm's models and their specs: same weights, same image, each in float32.

That a spec is timm's network is seen on PyTorch, where timm runs. On the other frameworks the same
specs are compared with the float64 reference, cut to a few narrow blocks: more blocks and channels
are the same operations again.
"""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params

from .gradients import variables
from .small import on_torch, some_compiled
from golden import relative

# An odd size where padding rules part ways, and one that the stem halves evenly.
CASES = [
    ("dm_nfnet_f0", 96),
    ("nfnet_f0", 96),
    ("eca_nfnet_l0", 97),
    ("nf_regnet_b1", 97),
    ("nf_resnet50", 96),
    ("nf_seresnet26", 97),
    ("nf_ecaresnet26", 97),
    ("test_nfnet", 97),
]
# Between them they have every stem, head, attention and activation of the eight, and DeepMind's and
# timm's rules.
KEPT = [case for case in CASES if case[0] in ("dm_nfnet_f0", "eca_nfnet_l0", "nf_regnet_b1")]
KEPT += [("nf_seresnet26", 97)]
NEAR = 2e-6


def images(size):
    return np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)


def timms(plan, params, name, x, **how):
    """The logits of timm's own model; `how` are arguments of its constructor."""
    from standin import timm

    return logits_of(timm.create_model(name, **how).eval(), plan, params, x)


def logits_of(theirs, plan, params, x):
    """The logits of a model of timm's with the weights of a network of ours."""
    import torch

    state = nfspec.weights.to_timm(plan, params)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    with torch.inference_mode():
        return theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy().astype(np.float64)


@on_torch
@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_are_timms_and_the_references(name, size, backend):
    spec = nfspec.load(f"timm/{name}")
    plan = nfspec.resolve(spec)
    # Without kernel means: with them timm, which does not centre twice, is itself up to 1.3e-6 away
    # from the float64 reference, which leaves no room to measure in.
    params, x = trial_params(plan, 0, kernel_mean=0.0), images(size)
    model = nfspec.compile(plan, backend, params)
    assert relative(model.predict_on_batch(x), timms(plan, params, name, x)) <= NEAR
    # And where standardisation has a mean to remove, against the exact result.
    params = trial_params(plan, 0)
    for canonical, variable in variables(model).items():
        variable.assign(params[canonical])
    exact = nfspec.reference.forward(plan, params, x)["logits"]
    assert relative(model.predict_on_batch(x), exact) <= NEAR


# Odd and even sides, square and not; strides leave a row over at some.
SIDES = ((97, 130), (64, 64), (131, 99))
# A network of each family: with a second conv and without, of groups and not, of timm's two strides
# of the stem and both rules of padding.
DILATED = [("test_nfnet", 8, SIDES), ("test_nfnet", 16, SIDES)]
DILATED += [("nf_regnet_b1", 16, SIDES[:1]), ("nf_ecaresnet26", 8, SIDES[:1])]
WHOLE = ("dm_nfnet_f0", "nfnet_l0", "nf_regnet_b1", "nf_ecaresnet26")


@on_torch
@pytest.mark.parametrize(
    ("name", "stride", "several"),
    [
        *DILATED,
        *(pytest.param(n, s, SIDES, marks=pytest.mark.slow) for n in WHOLE for s in (8, 16)),
    ],
)
def test_logits_at_an_output_stride_are_timms(name, stride, several, backend):
    spec = nfspec.output_stride(nfspec.load(f"timm/{name}"), stride)
    plan = nfspec.resolve(spec)
    params = trial_params(plan, 0, kernel_mean=0.0)
    model = nfspec.compile(plan, backend, params)
    for sides in several:
        x = np.random.default_rng(0).standard_normal((1, *sides, 3)).astype(np.float32)
        expected = timms(plan, params, name, x, output_stride=stride)
        assert relative(model.predict_on_batch(x), expected) <= NEAR, sides


@on_torch
@pytest.mark.parametrize("size", [97, 64])
@pytest.mark.parametrize("stem", ["3x3_pool", "7x7", "deep", "deep_pool", "deep_tiered"])
def test_logits_of_a_network_with_a_named_stem_are_timms(stem, size, backend):
    """The stems that none of timm's networks above has. After one of stride 2, timm's first stage
    has a stride."""
    from standin import timm

    first = 1 if stem.endswith("_pool") else 2
    over = {"stem.type": stem, "stem.width": 24, "stages.stride": [first, 2, 2, 2]}
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet", over))
    params, x = trial_params(plan, 0, kernel_mean=0.0), images(size)
    config = replace(timm.models.nfnet.model_cfgs["test_nfnet"], stem_type=stem, stem_chs=24)
    theirs = timm.models.nfnet.NormFreeNet(config).eval()
    expected = logits_of(theirs, plan, params, x)
    assert relative(nfspec.compile(plan, backend, params).predict_on_batch(x), expected) <= NEAR


@pytest.mark.parametrize(("name", "size"), some_compiled(CASES, KEPT))
def test_reduced_networks_stay_near_the_reference(name, size, backend):
    if backend == "torch":
        pytest.skip("the whole networks are tested above")
    assert_near(reduced_plan(nfspec.load(f"timm/{name}")), size, backend)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), CASES)
def test_whole_networks_stay_near_the_reference(name, size, backend):
    assert_near(nfspec.resolve(nfspec.load(f"timm/{name}")), size, backend)


def assert_near(plan, size, backend):
    params, x = trial_params(plan, 0), images(size)
    exact = nfspec.reference.forward(plan, params, x)["logits"]
    assert relative(nfspec.compile(plan, backend, params).predict_on_batch(x), exact) <= NEAR
