"""Networks and random weights for the tests of nfspec.weights."""

import numpy as np
import pytest

import nfspec

from golden import DATA


@pytest.fixture
def plan() -> nfspec.Plan:
    return nfspec.resolve(nfspec.load(DATA / "nfnet_tiny.toml"))


@pytest.fixture
def params(plan) -> dict[str, np.ndarray]:
    """Random weights of `plan`."""
    rng = np.random.default_rng(0)
    return {
        name: np.asarray(rng.standard_normal(parameter.shape), np.float32)
        for name, parameter in plan.parameters.items()
    }


@pytest.fixture
def same_bits():
    """Two dicts of arrays are of the same names in order, shapes, dtypes and bits."""

    def compare(actual, expected):
        assert list(actual) == list(expected)
        for name, array in expected.items():
            assert actual[name].shape == array.shape, name
            assert actual[name].dtype == array.dtype, name
            assert actual[name].tobytes() == array.tobytes(), name

    return compare


@pytest.fixture
def complaint(tmp_path):
    """The message of the WeightError that a call ends in, without the test's folder."""

    def catch(function, *args):
        with pytest.raises(nfspec.WeightError) as caught:
            function(*args)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return catch
