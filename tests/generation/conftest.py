"""The small networks, each resolved once, and what the reference makes of them."""

from functools import cache

import numpy as np
import pytest

import nfspec
from nfspec import reference
from nfspec.conformance.compare import distance
from nfspec.reference.rounding import Rounding

import networks


@pytest.fixture(scope="session")
def plan_of(tmp_path_factory):
    """A function of a network's name, which returns its plan."""
    folder = tmp_path_factory.mktemp("networks")
    return cache(lambda name: nfspec.resolve(networks.network(name, folder)))


@pytest.fixture(scope="session")
def derivatives(plan_of):
    """A function of a network's name: images, targets, and for each parameter the derivative of the
    mean cross-entropy with the bound of its distance."""

    @cache
    def compute(name):
        plan = plan_of(name)
        params, batches = networks.drawn(plan)
        images, targets = batches[0], np.eye(3, dtype=np.float32)[[0, 2]]
        exact, *rounded = (
            reference.loss_and_gradients(plan, params, images, targets, rounding).of_parameters
            for rounding in (None, Rounding(0), Rounding(1), Rounding(2))
        )
        rows = {}
        for key, value in exact.items():
            gaps = [distance(np.asarray(each[key]), value) for each in rounded]
            rows[key] = (value, 3 * np.sqrt(np.mean(np.square(gaps))))
        return images, targets, rows

    return compute
