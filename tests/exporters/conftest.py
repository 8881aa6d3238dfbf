"""Small networks by name, with weights away from their initial values."""

import pytest

import nfspec

import networks


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A function of a name of `networks.NETWORKS`: the plan and parameters."""
    folder, made = tmp_path_factory.mktemp("specs"), {}

    def of(name):
        if name not in made:
            plan = nfspec.resolve(networks.network(name, folder))
            made[name] = plan, networks.drawn(plan)[0]
        return made[name]

    return of
