"""Rounding to the formats of the narrow modes: to nearest, ties to even."""

import numpy as np
import pytest

from nfspec.conformance.cases.precision import truncated


def floats(seed=0):
    """Floats of all magnitudes, some of which are ties."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(100_000) * 2.0 ** rng.integers(-100, 100, 100_000)
    ties = (1.0 + np.arange(64) / 256.0) * 2.0 ** np.arange(-32, 32)
    return np.concatenate([x, ties, -ties, [0.0, -0.0]]).astype(np.float32)


def test_seven_bits_are_those_of_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = floats()
    expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(truncated(x, 7).view(np.uint32), expected.view(np.uint32))


def test_ten_bits_are_those_of_float16_where_it_has_them():
    x = floats()
    x = x[(np.abs(x) > 2.0**-14) & (np.abs(x) < 2.0**15)]
    assert len(x) > 10_000
    np.testing.assert_array_equal(truncated(x, 10), x.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("bits", [7, 10])
def test_so_many_bits_are_kept_and_no_more(bits):
    x = floats()
    kept = truncated(x, bits)
    assert not (kept.view(np.uint32) & np.uint32((1 << (23 - bits)) - 1)).any()
    assert (np.abs(kept.astype(np.float64) - x) <= 2.0 ** -(bits + 1) * np.abs(x)).all()
    np.testing.assert_array_equal(truncated(kept, bits), kept)


def test_ties_go_to_the_even_one():
    step = 2.0**-10
    x = np.float32([1.0 + 0.5 * step, 1.0 + 1.5 * step, 1.0 + 2.5 * step])
    assert truncated(x, 10).tolist() == [1.0, 1.0 + 2 * step, 1.0 + 2 * step]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shapes_are_kept(shape):
    x = np.full(shape, 1.001, np.float32, order="F")
    assert truncated(x, 7).shape == shape
    assert np.unique(x).tolist() == [np.float32(1.001)]  # and what was given is as it was
