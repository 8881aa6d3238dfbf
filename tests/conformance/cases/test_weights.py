"""Trial weights: seeded, and away from every initial value that hides mistakes."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec.conformance.cases.case import FLAT, GAINS
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.regimes import eps_scale
from nfspec.conformance.cases.weights import changed_params, params_digest, trial_params
from nfspec.plan import WSConv


def test_no_parameter_is_at_its_initial_value():
    plan = nfspec.resolve(nfspec.load("nf-regnet-b0"))  # a classifier of zeros, skip gains of zero
    params, start = trial_params(plan, 0), nfspec.init(plan)
    assert list(params) == list(plan.parameters)
    assert all((params[name] != start[name]).all() for name in params)
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}


def test_seeds_give_different_weights_and_the_same_seed_the_same():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    digests = [params_digest(trial_params(plan, seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_sees_names_and_values():
    ones = np.ones(2, np.float32)
    digests = {params_digest(p) for p in ({"a": ones}, {"b": ones}, {"a": 2 * ones})}
    assert len(digests) == 3


REDUCED = reduced_plan(nfspec.load("nfnet-f0"))
CONVS = [op for op in REDUCED.ops if isinstance(op, WSConv)]


@pytest.mark.parametrize("name", ["nfnet-f0", "timm/eca_nfnet_l0", "nf-regnet-b0"])
def test_flat_channels_are_on_both_sides_of_eps_and_some_are_dead(name):
    plan = reduced_plan(nfspec.load(name))
    usual = trial_params(plan, 0)
    params = changed_params(plan, usual, 0, FLAT)
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    for op in convs:
        kernel = params[op.parameters[0].name]
        alike = np.ptp(kernel, axis=(0, 1, 2)) == 0.0
        zero = (kernel == 0.0).all(axis=(0, 1, 2))
        normal = (kernel == usual[op.parameters[0].name]).all(axis=(0, 1, 2))
        assert zero.any() and (alike & ~zero).any() and normal.any()
        assert (~alike & ~normal).any()
        # Just what eps is compared with: within a factor of e^6 for channels that are flat.
        by_eps = kernel.astype(np.float64).std(axis=(0, 1, 2)) / (op.fan_in**-0.5 * eps_scale(op))
        flat = by_eps[~alike & ~normal]
        assert flat.min() > np.exp(-3.0) and flat.max() < np.exp(3.0)
    assert {n for n in params if (params[n] != usual[n]).any()} == {
        op.parameters[0].name for op in convs
    }


def test_gains_are_of_every_size_and_sign():
    params = changed_params(REDUCED, trial_params(REDUCED, 0), 0, GAINS)
    for op in CONVS:
        gain = params[f"{op.name}.gain"]
        assert (gain < 0.0).any() and (gain == 0.0).any()
        assert np.abs(gain).max() > 2.0
        assert ((gain != 0.0) & (np.abs(gain) < 1e-3)).any()
        assert (gain.astype(np.float64) ** 2).mean() == pytest.approx(1.0)
    skips = [value for name, value in params.items() if name.endswith("skip_gain")]
    assert min(skips) < 0.0 < max(skips)
    assert all(value.dtype == np.float32 for value in params.values())


def test_without_eps_no_weights_are_alike():
    """They would be divided by 0."""
    plan = replace(
        REDUCED,
        ops=tuple(replace(op, eps=0.0) if isinstance(op, WSConv) else op for op in REDUCED.ops),
    )
    usual = trial_params(plan, 0)
    assert params_digest(changed_params(plan, usual, 0, FLAT)) == params_digest(usual)


def test_other_regimes_leave_the_weights_as_they_are():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    usual = trial_params(plan, 0)
    assert params_digest(changed_params(plan, usual, 0, "normal")) == params_digest(usual)
