"""The reverse sweep against the original's gradients, and against the forward pass."""

import numpy as np
import pytest

import nfspec
from nfspec.reference.gradients import cross_entropy, loss_and_gradients
from nfspec.reference.training import smoothed

from golden import NETWORKS, golden, relative


def targets(g):
    return smoothed(g["labels"], g["logits"].shape[1], 0.1)


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_and_gradients_are_the_originals(network):
    g = golden(network)
    actual = loss_and_gradients(g.plan, g.params, g["x"], targets(g))
    assert actual.loss == pytest.approx(float(g["loss"]), rel=1e-12)
    assert relative(actual.logits, g["logits"]) <= 1e-12
    assert relative(actual.of_images, g["grad_x"]) <= 1e-12
    exact = g.named("grad")  # rounded to float32, which moves each by at most 2^-24 = 6e-8
    assert list(actual.of_parameters) == list(g.plan.parameters)
    distances = {name: relative(actual.of_parameters[name], exact[name]) for name in exact}
    assert max(distances.values()) <= 1e-7, distances


def test_a_batchs_gradient_is_the_mean_of_its_images():
    g = golden("nf_resnet_tiny")
    together = loss_and_gradients(g.plan, g.params, g["x"], targets(g))
    alone = [
        loss_and_gradients(g.plan, g.params, g["x"][i : i + 1], targets(g)[i : i + 1])
        for i in range(2)
    ]
    assert together.loss == pytest.approx((alone[0].loss + alone[1].loss) / 2, rel=1e-13)
    # A hundred operations' rounding of 1e-16; sums over the images cancel no more than tenfold.
    for name, actual in together.of_parameters.items():
        exact = (alone[0].of_parameters[name] + alone[1].of_parameters[name]) / 2
        assert relative(actual, exact) <= 1e-12, name


def test_gradients_of_a_network_without_skip_gains_are_the_slope_of_its_loss():
    """timm's conventions: gamma in the convs, eps added, symmetric padding."""
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    rng = np.random.default_rng(0)
    params = {n: v + 0.1 * rng.standard_normal(v.shape) for n, v in nfspec.init(plan).items()}
    x, wanted = rng.standard_normal((2, 33, 32, 3)), smoothed([3, 5], 1000, 0.1)
    actual = loss_and_gradients(plan, params, x, wanted)
    along = {name: rng.standard_normal(value.shape) for name, value in params.items()}
    slope = sum(float((actual.of_parameters[n] * v).sum()) for n, v in along.items())

    def difference(step):
        ends = []
        for h in (step, -step):
            moved = {name: value + h * along[name] for name, value in params.items()}
            logits = nfspec.reference.forward(plan, moved, x)["logits"]
            ends.append(cross_entropy(logits, wanted)[0])
        return (ends[0] - ends[1]) / (2 * step)

    # A central difference is off by (step²/6)·L''' and rounding: twice the step is off by four
    # times as much, so they differ by three times the error. Rounding is 1e-14, as in the logits.
    step = 1e-5
    near, far = difference(step), difference(2 * step)
    rounding = 1e-14 * actual.loss / step
    assert abs(far - near) < 1e-6 * abs(slope)  # so the step is small enough to say this
    assert slope == pytest.approx(near, rel=0, abs=abs(far - near) + rounding)


def test_cross_entropy_by_hand():
    loss, derivative = cross_entropy(np.log([[1.0, 3.0]]), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(np.log(4.0), rel=1e-15)
    assert derivative == pytest.approx(np.array([[-0.75, 0.75]]), rel=1e-15)
    # Rows that do not sum to 1: -0.5 log p, p = 1/4.
    loss, derivative = cross_entropy(np.log([[1.0, 3.0]]), np.array([[0.5, 0.0]]))
    assert loss == pytest.approx(0.5 * np.log(4.0), rel=1e-15)
    assert derivative == pytest.approx(np.array([[-0.375, 0.375]]), rel=1e-15)


def test_cross_entropy_of_large_logits_is_finite():
    loss, derivative = cross_entropy(np.array([[1e4, 0.0], [0.0, 0.0]]), np.eye(2)[[1, 0]])
    assert loss == pytest.approx((1e4 + np.log(2.0)) / 2, rel=1e-15)
    assert derivative.tolist() == [[0.5, -0.5], [-0.25, 0.25]]


def test_bad_input_is_refused():
    g = golden("nf_resnet_tiny")
    x, wanted = g["x"], targets(g)
    with pytest.raises(nfspec.InputError, match=r"images: .* shape \(N, H, W, 3\)"):
        loss_and_gradients(g.plan, g.params, x[..., :1], wanted)
    with pytest.raises(nfspec.InputError, match="images: expected at least one"):
        loss_and_gradients(g.plan, g.params, x[:0], wanted[:0])
    with pytest.raises(nfspec.InputError, match=r"targets: .* \(2, 10\); found \(2,\)"):
        loss_and_gradients(g.plan, g.params, x, g["labels"])
