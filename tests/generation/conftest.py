"""The small networks, each resolved once."""

from functools import cache

import pytest

import nfspec

import networks


@pytest.fixture(scope="session")
def plan_of(tmp_path_factory):
    """A function of a network's name, which returns its plan."""
    folder = tmp_path_factory.mktemp("networks")
    return cache(lambda name: nfspec.resolve(networks.network(name, folder)))
