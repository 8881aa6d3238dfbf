"""The loss takes labels in each form that people have."""

import keras
import numpy as np
import pytest

from .small import small_run

CLASSES = 10
NUMBERS = np.array([3, 0, 9, 3])


def one_hot():
    return np.eye(CLASSES, dtype=np.float32)[NUMBERS]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)], ids=str)
def test_numbers_of_classes_are_one_hot_labels(shape, dtype):
    logits = np.random.default_rng(0).standard_normal((4, CLASSES)).astype(np.float32)
    loss = small_run().loss()
    expected = keras.ops.convert_to_numpy(loss(one_hot(), logits))
    found = keras.ops.convert_to_numpy(loss(NUMBERS.astype(dtype).reshape(shape), logits))
    assert found == expected


def test_fit_takes_either():
    """Also after the other, by one compiled model."""
    images = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES)])
    model.compile(keras.optimizers.SGD(0.0), small_run().loss())
    first, *others = (
        model.fit(images, labels, verbose=0).history["loss"]
        for labels in (NUMBERS, one_hot(), NUMBERS)
    )
    assert others == [pytest.approx(first, rel=1e-6)] * 2
