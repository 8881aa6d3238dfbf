"""The expected square of a fresh conv, against many fresh convs; bounds, against many networks."""

import numpy as np
import pytest

import nfspec
from nfspec.design.statistics import Statistics, quantile
from nfspec.plan import Init, WSConv
from nfspec.reference.network import evaluate


@pytest.mark.parametrize(
    ("freedom", "chance", "number"),
    # Tables of Student's t; 1 degree of freedom: tan(pi * (1/2 - chance)).
    [(1, 0.25, 1.0), (1, 1e-3, 318.3088), (5, 0.025, 2.570582), (30, 0.005, 2.749996)],
)
def test_quantiles_are_those_of_the_tables(freedom, chance, number):
    assert quantile(freedom, chance) == pytest.approx(number, rel=1e-6)


def fresh(rng, **changes):
    """A conv, drawn, on skewed inputs with borders: its output, and the ratio."""
    shape = {"in_channels": 8, "out_channels": 4000, "kernel": 3, "stride": 2, "groups": 2}
    how = {"padding": "same", "eps": 1e-9, "eps_rule": "max", "ddof": 0, "dtype": "float32"}
    init = {"gamma": 1.7, "kernel_init": Init("normal", 36**-0.5), "gain_init": 1.0}
    op = WSConv("conv", ("input",), **{**shape, **how, **init, **changes})
    x = rng.exponential(size=(1, 5, 5, 8))
    kernel = op.kernel_init.value * rng.standard_normal(op.kernel_shape)
    values = [kernel, np.full(4000, op.gain_init), np.zeros(4000)]
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    statistics = Statistics(type(plan)(**{**vars_of(plan), "ops": (op,)}))
    statistics.add(op, x, evaluate(op, [x], values))
    return statistics.convs()[0]


def vars_of(plan):
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"padding": "valid", "stride": 1},
        {"padding": "symmetric", "kernel": 5, "groups": 1},
        {"ddof": 1},
        {"eps": 0.5, "eps_rule": "add"},
        {"eps": 0.5, "eps_rule": "add_to_std"},
        {"eps": 3.0},
        {"gain_init": 0.5},
        {"eps_rule": "none"},
        {"eps_rule": "none", "kernel_init": Init("normal", 0.5), "padding": "symmetric"},
    ],
)
def test_a_fresh_convs_power_is_the_expected_one(changes):
    """Four thousand kernels: the bound, of chance 1e-6, is a few percent. `add` and `add_to_std`
    have the mean of a ratio for the ratio of means, which differ by about the relative variance of
    the kernel's variance, 2/36."""
    ratio = fresh(np.random.default_rng(0), **changes)
    assert ratio.bound < 0.2
    room = 2 / 36 if "add" in str(changes.get("eps_rule")) else 0.0
    assert abs(ratio.value - 1.0) <= ratio.bound + room


@pytest.mark.parametrize(
    "name", ["nfnet-nano", "nf-regnet-b0", "nf-resnet-50", "timm/test_nfnet", "timm/nf_seresnet26"]
)
def test_no_fresh_network_leaves_the_bounds(name):
    """They are of chance 1e-6 a network."""
    plan = nfspec.resolve(nfspec.load(name))
    for seed in range(3):
        params = nfspec.signal.with_skip_gain(plan, nfspec.init(plan, seed), 1.0)
        signal = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 2, 48, seed))
        ratios = [*signal.convs, *signal.gates]
        assert [each for each in ratios if not each.good] == []
        assert min(each.bound for each in signal.convs) < 0.15
