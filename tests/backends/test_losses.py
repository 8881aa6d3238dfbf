"""The loss takes labels in each form that people have."""

import keras
import numpy as np
import pytest

from nfspec.errors import InputError
from nfspec.reference.gradients import cross_entropy
from nfspec.reference.training import smoothed

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


WEIGHTS = [0.0, 2.0, 0.5, 3.0, 1.0, 1.0, 0.25, 1.0, 1.0, 4.0]
U = 2.0**-24  # float32's unit roundoff


def mixed():
    """Labels as mixup makes them."""
    labels = one_hot()
    return np.float32(0.75) * labels + np.float32(0.25) * labels[::-1]


@pytest.mark.parametrize("labels", [NUMBERS, one_hot(), mixed()], ids=["numbers", "one", "mixed"])
def test_class_weights_multiply_the_loss_of_an_image(labels):
    """And its gradient, by one step of descent with a rate of 1.

    A score is off by 2 U for each unit of the range of the logits, and by C + 4 U for the sum of C
    exponentials; weighted with the target and summed over C classes and N images. The derivative by
    a logit is a difference of two numbers of at most 1, which are off by as much.
    """
    x = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES)])
    kernel = np.random.default_rng(3).standard_normal((5, CLASSES)).astype(np.float32)
    model.set_weights([kernel, np.zeros(CLASSES, np.float32)])
    logits = x.astype(np.float64) @ kernel.astype(np.float64)
    targets = smoothed(labels, CLASSES, 0.1, WEIGHTS)
    loss, slope = cross_entropy(logits, targets)
    most, reach = targets.sum(1).max(), np.ptp(logits, axis=1).max()
    off = 5 * U * (np.abs(x) @ np.abs(kernel)).max()  # of the logits themselves
    score = 2 * off + (2 * reach + 2 * CLASSES + len(x) + 10) * U * (1 + reach)
    model.compile(keras.optimizers.SGD(1.0), small_run(class_weights=WEIGHTS).loss())
    found = model.train_on_batch(x, labels)
    assert abs(found - loss) <= most * score
    moved = kernel - model.get_weights()[0].astype(np.float64)
    bound = most * score * np.abs(x).mean(0)[:, None] + U * np.abs(kernel)
    assert (np.abs(moved - x.T.astype(np.float64) @ slope) <= bound).all()


def test_class_weights_are_saved_with_the_loss():
    loss = small_run(class_weights=WEIGHTS).loss()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    logits = np.random.default_rng(0).standard_normal((4, CLASSES)).astype(np.float32)
    first, second = (keras.ops.convert_to_numpy(each(NUMBERS, logits)) for each in (loss, again))
    assert first == second


def test_labels_of_another_number_of_classes():
    loss = small_run().loss()
    with pytest.raises(InputError, match=r"shares of 5, \(N, 5\); found the shape \(2, 3\); load"):
        loss(np.eye(3, dtype=np.float32)[:2], np.zeros((2, 5), np.float32))
