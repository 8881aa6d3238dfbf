"""The oracle against the original: same parameters, same input, both in float64."""

import numpy as np
import pytest

import nfspec
from nfspec.reference.rounding import Rounding

from golden import NETWORKS, golden, relative


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_and_pool_are_the_originals(network):
    g = golden(network)
    taps = nfspec.reference.forward(g.plan, g.params, g["x"])
    assert relative(taps["logits"], g["logits"]) <= 1e-12
    assert relative(taps["pool"], g["pool"]) <= 1e-12


@pytest.mark.parametrize("network", NETWORKS)
def test_metrics_of_every_block_are_the_originals(network):
    g = golden(network)
    signals = nfspec.signal.measure(g.plan, g.params, g["x"]).signals
    assert len(signals) == 1 + len(g.plan.blocks)
    for i, signal in enumerate(signals):
        assert signal.avg_sq_mean == pytest.approx(float(g[f"metric/avg_sq_mean_{i}"]), rel=1e-12)
        assert signal.avg_var == pytest.approx(float(g[f"metric/avg_var_{i}"]), rel=1e-12)
        if i:
            exact = float(g[f"metric/res_avg_var_{i - 1}"])
            assert signal.res_avg_var == pytest.approx(exact, rel=1e-12)


def test_an_images_result_does_not_depend_on_its_batch():
    g = golden("nfnet_tiny_odd")
    together = nfspec.reference.forward(g.plan, g.params, g["x"])["logits"]
    alone = nfspec.reference.forward(g.plan, g.params, g["x"][1:])["logits"]
    assert relative(alone, together[1:]) <= 1e-14


def test_taps_may_name_any_operation():
    g = golden("nf_regnet_tiny")
    actual = nfspec.reference.forward(g.plan, g.params, g["x"], taps={"se": "stages.1.blocks.0.se"})
    assert list(actual) == ["se"]
    assert actual["se"].shape == (2, 8, 8, 40)


def test_an_output_that_is_changed_is_what_the_next_operation_reads():
    g = golden("nfnet_tiny_odd")
    seen = {}

    def change(op, x, out):
        seen[op.name] = x
        return 2.0 * out if op.name == "pool" else out

    taps = nfspec.reference.forward(g.plan, g.params, g["x"], change=change)
    exact = nfspec.reference.forward(g.plan, g.params, g["x"])
    kernel, bias = g.params["head.fc.kernel"], g.params["head.fc.bias"]
    assert relative(taps["pool"], 2.0 * exact["pool"]) <= 1e-14
    assert relative(taps["logits"], 2.0 * exact["pool"] @ kernel + bias) <= 1e-14
    assert [*seen] == [op.name for op in g.plan.ops]
    np.testing.assert_array_equal(seen["pool"], exact["features"])


def test_images_of_another_shape_are_refused():
    g = golden("nfnet_tiny")
    with pytest.raises(nfspec.InputError, match=r"expected an array of shape \(N, H, W, 3\)"):
        nfspec.reference.forward(g.plan, g.params, np.zeros((40, 40, 3)))


def test_rounding_noise_is_seeded_and_of_the_size_of_float32():
    g = golden("nfnet_tiny")
    runs = [
        nfspec.reference.forward(g.plan, g.params, g["x"], rounding=Rounding(seed))["logits"]
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    # Each of about 60 operations adds between 1 and 20 unit roundoffs (sqrt(n/6), n up to 576).
    assert 1 * 2**-24 < relative(runs[0], g["logits"]) < 60 * 20 * 2**-24
