import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nfspec.weights.arrays import as_float32, owned

VALUES = [[1.0, -0.5, 2.0**-14], [float("inf"), float("nan"), 0.0]]


@pytest.mark.parametrize(
    "value",
    [
        np.array(VALUES, np.float16),
        np.array(VALUES, np.float64),
        np.array(VALUES, ">f4"),
        jnp.array(VALUES),
        jnp.array(VALUES, jnp.bfloat16),
        torch.tensor(VALUES, requires_grad=True),
        torch.tensor(VALUES, dtype=torch.float64),
        torch.tensor(VALUES, dtype=torch.float16),
        torch.tensor(VALUES, dtype=torch.bfloat16),
    ],
    ids=lambda value: f"{type(value).__module__.split('.')[0]}-{value.dtype}",
)
def test_values_that_float32_holds_are_kept(value):
    actual = as_float32(value)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, np.array(VALUES, np.float32))


def test_float32_is_not_copied_so_that_every_bit_stays():
    signalling = np.array([0x7FA00001], np.uint32).view(np.float32)
    assert as_float32(signalling) is signalling


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.array([float("nan"), 0.5, 0.1]), "float64 that float32 cannot hold, such as 0.1"),
        (np.array(1e300), "float64 that float32 cannot hold, such as 1e+300"),
        (np.array([1e-60]), "float64 that float32 cannot hold, such as 1e-60"),
        (torch.tensor([0.1], dtype=torch.float64), "float64 that float32 cannot hold, such as 0.1"),
        (torch.empty(2, device="meta"), "Tensor of float32 that NumPy cannot hold"),
        (
            torch.zeros(2, dtype=torch.float8_e4m3fn),
            "Tensor of float8_e4m3fn that NumPy cannot hold",
        ),
        ("text", "str, expected a tensor"),
        (None, "NoneType, expected a tensor"),
        ([1.0], "list, expected a tensor"),
    ],
)
def test_what_cannot_be_used_says_why(value, reason):
    assert as_float32(value) == reason


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.arange(3), "int64"),
        (np.array([None]), "object"),
        (torch.tensor([True]), "bool"),
    ],
)
def test_other_dtypes_are_left_for_the_listing(value, dtype):
    assert str(as_float32(value).dtype) == dtype


@pytest.mark.parametrize(
    "array", [np.float32(3).reshape(()), np.arange(6, dtype=np.float32).reshape(2, 3).T]
)
def test_owned_copies_in_c_order_and_keeps_the_shape(array):
    actual = owned(array)
    np.testing.assert_array_equal(actual, array, strict=True)
    assert actual.flags.c_contiguous
    assert actual.flags.writeable
    assert not np.shares_memory(actual, array)


class Unreadable:
    """A tensor of some library that fails as it is made an array."""

    shape, dtype = (2,), np.dtype(np.float32)

    def __init__(self, error):
        self.error = error

    def __array__(self, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "float32 of shape (2,), for which memory does not suffice"),
        (ValueError(), "Unreadable of float32 that NumPy cannot hold"),
    ],
)
def test_tensors_that_cannot_be_converted_say_why(error, reason):
    assert as_float32(Unreadable(error)) == reason


def test_torchs_masked_tensors_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the API is a prototype
        masked = torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False]))
    assert as_float32(masked).startswith("MaskedTensor, whose mask would be lost")
