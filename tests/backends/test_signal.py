"""The signal on each framework is the reference's."""

import keras
import numpy as np

import nfspec
from nfspec.conformance.compare import bounds

from .small import batches, small_params, small_plan

BACKEND = keras.backend.backend()


def test_the_signal_is_the_references():
    """A tap within a relative distance d of the reference has a mean square within 2 d + d**2 of
    it, and so have its parts, the squared mean and the variance; d is the kit's bound."""
    plan, params, x = small_plan(), small_params(), batches(1)[0]
    exact = nfspec.signal.measure(plan, params, x)
    found = nfspec.signal.measure(plan, params, x, backend=BACKEND)
    taps = nfspec.reference.forward(plan, params, x)
    distance = bounds(plan, params, x, taps)
    assert [each.op for each in found.convs] == [each.op for each in exact.convs]
    for one, other in zip(exact.signals, found.signals, strict=True):
        power = one.avg_sq_mean + one.avg_var
        room = (2 * distance[one.tap] + distance[one.tap] ** 2) * power
        assert 0 < room < 1e-3 * power
        assert abs(one.avg_sq_mean - other.avg_sq_mean) <= room
        assert abs(one.avg_var - other.avg_var) <= room
    ratios = zip(exact.convs + exact.gates, found.convs + found.gates, strict=True)
    assert max(abs(one.value / other.value - 1) for one, other in ratios) < 1e-4
    assert np.isclose(exact.image_power, found.image_power)
