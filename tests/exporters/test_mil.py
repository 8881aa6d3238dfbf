"""The operators of Core ML's programs in NumPy, beside the reference's."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from nfspec.backends.exporters import mil
from nfspec.errors import InputError
from nfspec.plan import Pool
from nfspec.reference import operations

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 7, 10, 6))  # NHWC


def nchw(x):
    return x.transpose(0, 3, 1, 2)


def around(kernel, stride, padding):
    return np.array([operations.pads(side, kernel, stride, padding) for side in X.shape[1:3]])


@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(
    "kernel, stride, groups, dilation", [(3, 2, 2, 1), (1, 1, 1, 1), (5, 1, 3, 1), (3, 1, 2, 2)]
)
def test_conv(kernel, stride, groups, dilation, padding):
    weight = RNG.standard_normal((kernel, kernel, 6 // groups, 12))
    bias = RNG.standard_normal(12)
    given = {
        "x": nchw(X),
        "weight": weight.transpose(3, 2, 0, 1),
        "bias": bias,
        "groups": np.int32(groups),
        "strides": np.array([stride] * 2),
        "dilations": np.array([dilation] * 2),
        "pad": around(1 + dilation * (kernel - 1), stride, padding).ravel(),
    }
    right = operations.conv(X, weight, stride, groups, padding, dilation) + bias
    np.testing.assert_allclose(mil.OPERATORS["conv"](given), nchw(right), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("window, stride", [(2, 2), (3, 2)])
def test_pools(kind, window, stride):
    given = {
        "x": nchw(X),
        "kernel_sizes": np.array([window] * 2),
        "strides": np.array([stride] * 2),
        "pad": around(window, stride, "same").ravel(),
        "exclude_padding_from_average": np.array(True),
    }
    op = Pool("pool", ("images",), kind, window, stride, "same")
    right = nchw(operations.pool(op, X))
    np.testing.assert_allclose(mil.OPERATORS[f"{kind}_pool"](given), right, rtol=1e-12)
    if kind == "avg":
        counted = mil.OPERATORS["avg_pool"]({**given, "exclude_padding_from_average": False})
        assert abs(counted - right).max() > 0.1  # at the edges


def constant(data, **changes):
    """A constant of three numbers whose values are beside the program."""
    dimension = SimpleNamespace(constant=SimpleNamespace(size=3))
    names = {1: SimpleNamespace(name="FLOAT32")}
    field = SimpleNamespace(enum_type=SimpleNamespace(values_by_number=names))
    kind = SimpleNamespace(
        dimensions=[dimension],
        dataType=1,
        DESCRIPTOR=SimpleNamespace(fields_by_name={"dataType": field}),
    )
    entry = {"mark": mil.MARK, "dtype": 1, "size": 12, "place": 24, **changes}
    held = struct.pack("<IIQQ", *entry.values()) + data
    value = SimpleNamespace(
        type=SimpleNamespace(tensorType=kind),
        blobFileValue=SimpleNamespace(offset=0),
        WhichOneof=lambda name: "blobFileValue",
    )
    return mil._value(value, held, "a.mlpackage")


def test_weights_beside_a_program():
    data = np.array([1, 2, 3], "<f4").tobytes()
    np.testing.assert_array_equal(constant(data), [1, 2, 3])
    for changes in ({"mark": 0}, {"size": 16}, {"place": 2**60}):
        with pytest.raises(InputError, match="not in Data"):
            constant(data, **changes)
    with pytest.raises(InputError, match="number of values"):
        constant(data, size=8)
