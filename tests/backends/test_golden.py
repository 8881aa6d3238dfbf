"""Each framework in float32 against the original in float64, forward and backward.

The bounds are a small multiple of what the original itself is off by when run in float32: 0.4 to
2.0e-6 in the logits, 6e-6 in gradients, 5.5e-5 in those of the skip gains.
"""

import pytest

from .gradients import golden_model, loss_gradients, smoothed
from .small import some_compiled
from golden import NETWORKS, golden, relative

# Between them they have every kind of layer; nfnet_tiny takes ten steps in test_optimizers.py.
HERE = ("nfnet_tiny_odd", "nf_resnet_tiny")


@pytest.mark.parametrize("network", some_compiled(NETWORKS, HERE))
def test_logits_and_gradients_are_the_originals(network):
    g = golden(network)
    model = golden_model(network)
    logits, of_images, of_parameters = loss_gradients(model, g["x"], smoothed(network))
    assert relative(logits, g["logits"]) <= 3e-6
    assert relative(of_images, g["grad_x"]) <= 1e-5
    exact = g.named("grad")
    assert set(of_parameters) == set(exact)
    bounds = {name: 1e-4 if name.endswith("skip_gain") else 1e-5 for name in exact}
    distances = {name: relative(of_parameters[name], exact[name]) for name in exact}
    assert not {name: distances[name] for name in exact if not distances[name] <= bounds[name]}
