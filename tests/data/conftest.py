"""The digits, read once for the tests of a file."""

import pytest

from nfspec.data.sources import digits


@pytest.fixture(scope="module")
def scans():
    """The source of scikit-learn's handwritten digits."""
    return digits()
