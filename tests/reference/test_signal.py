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
    signals = nfspec.signal.measure(plan, nfspec.init(plan, seed=0), x)
    assert signals[0].res_avg_var is None
    for signal in signals[1:]:
        assert signal.avg_var == pytest.approx(signal.expected_variance, rel=0.05)
        assert signal.res_avg_var == pytest.approx(1.0, rel=0.05)
