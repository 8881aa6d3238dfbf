"""Expected variance against what the reference measures."""

import numpy as np
import pytest

import nfspec


def test_expected_variance_grows_by_alpha_squared_and_starts_anew_in_each_stage():
    expected = nfspec.signal.expected_variance(nfspec.resolve(nfspec.load("nfnet-f0")))
    actual = [expected[f"stages.2.blocks.{b}"] for b in range(6)]
    assert actual == pytest.approx([1 + 0.04 * (b + 1) for b in range(6)], rel=1e-12)
    assert expected["stages.3.blocks.0"] == pytest.approx(1.04, rel=1e-12)


def test_a_wide_network_at_initialisation_has_the_variance_that_beta_assumes():
    """With skip gains of 1 and no attention, residuals have unit variance.

    1x1 convs and independent pixels, so that no border dims the signal, and images of 512 channels,
    so that no pixel is much brighter than another. What is left is chance: sqrt(2/800) = 5 % for
    the variance of one channel over 800 pixels, and less for the mean of 512 of them.
    """
    spec = nfspec.load("nf-resnet-50")
    shape = {"depth": (4,), "width": (512,), "stride": 1, "expansion": 1.0, "kernel": 1}
    stages = spec.stages.model_copy(update=shape)
    block = spec.block.model_copy(update={"skip_gain_init": 1.0})
    stem = {"width": (512,), "stride": 1, "kernel": 1, "pool": "none"}
    changes = {"stages": stages, "block": block, "stem": spec.stem.model_copy(update=stem)}
    image = {"channels": 512, "mean": (0.0,) * 512, "std": (1.0,) * 512}
    changes["input"] = spec.input.model_copy(update=image)
    plan = nfspec.resolve(spec.model_copy(update=changes))
    x = np.random.default_rng(0).standard_normal((2, 20, 20, 512))
    signals = nfspec.signal.measure(plan, nfspec.init(plan, seed=0), x).signals
    assert signals[0].res_avg_var is None
    for signal in signals[1:]:
        assert signal.avg_var == pytest.approx(signal.expected_variance, rel=0.05)
        assert signal.res_avg_var == pytest.approx(1.0, rel=0.05)


def test_images_may_be_taken_a_few_at_a_time(monkeypatch):
    """Sums in float64 of the same numbers in another order."""
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    params, x = nfspec.init(plan), nfspec.signal.noise(plan, 5)
    whole, done = nfspec.signal.measure(plan, params, x), []
    monkeypatch.setattr(nfspec.signal, "AT_ONCE", 1)
    parts = nfspec.signal.measure(plan, params, x, step=done.append)
    assert done == [1] * 5
    for one, other in zip(whole.signals, parts.signals, strict=True):
        assert one.avg_var == pytest.approx(other.avg_var, rel=1e-12)
    for one, other in zip(whole.convs, parts.convs, strict=True):
        assert (one.value, one.bound) == pytest.approx((other.value, other.bound), rel=1e-9)


def test_skip_gains_of_either_kind_are_set():
    for name in ("nfnet-nano", "timm/nf_resnet26"):
        plan = nfspec.resolve(nfspec.load(name))
        params = nfspec.signal.with_skip_gain(plan, nfspec.init(plan), 0.5)
        assert nfspec.signal.skip_gains(plan, params) == {b.name: 0.5 for b in plan.blocks}
        expected = nfspec.signal.expected_variance(plan, nfspec.signal.skip_gains(plan, params))
        assert expected["stages.0.blocks.0"] == pytest.approx(1 + 0.01)


def test_skip_gains_of_0_leave_the_shortcuts_alone():
    plan = nfspec.resolve(nfspec.load("nf-resnet-50"))
    params = nfspec.signal.with_skip_gain(plan, nfspec.init(plan), 0.0)
    found = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 1, 64)).signals
    of_stage = [each for each in found if each.tap.startswith("stages.2.")]
    assert {each.expected_variance for each in of_stage} == {1.0}
    assert len({each.avg_var for each in of_stage}) == 1


def test_a_folded_network_has_the_same_signal():
    """Kernels are rounded to float32 once: 2**-24 each, 30 convs, times two for a square."""
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    params, x = nfspec.init(plan), nfspec.signal.noise(plan, 2)
    params = nfspec.signal.with_skip_gain(plan, params, 1.0)
    written = nfspec.signal.measure(plan, params, x).signals
    folded = nfspec.signal.measure(plan, params, x, folded=True).signals
    for one, other in zip(written, folded, strict=True):
        assert other.avg_var == pytest.approx(one.avg_var, rel=2 * 30 * 2**-24)
        assert (other.expected_variance, other.res_avg_var) == (one.expected_variance, None)
