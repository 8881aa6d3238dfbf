"""Trial weights: seeded, and away from every initial value that hides mistakes."""

import numpy as np

import nfspec
from nfspec.conformance.cases.weights import params_digest, trial_params


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
