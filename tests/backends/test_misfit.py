"""Images of the wrong shape: one sentence that says what to do."""

import keras
import numpy as np
import pytest

import nfspec

from .small import small_params, small_spec

WRONG = {
    "channels first": ((2, 3, 16, 16), 'end, or compile with data_format="channels_first"'),
    "grey": ((2, 16, 16, 1), "load the spec with their number as input.channels"),
    "four channels": ((2, 16, 16, 4), "convert the images"),
    "no batch": ((16, 16, 3), "put an axis in front of a single image"),
    "one axis": ((3,), "give a batch of images"),
}


@pytest.fixture(scope="module")
def model():
    return nfspec.compile(small_spec(), keras.backend.backend(), small_params())


@pytest.mark.parametrize("case", WRONG)
def test_a_call_names_the_shape(model, case):
    shape, advice = WRONG[case]
    with pytest.raises(nfspec.InputError) as error:
        model(np.zeros(shape, np.float32))
    said = str(error.value)
    assert said.startswith(f"{model.name}: expected images (N, H, W, 3), of one pixel or more; ")
    assert f"found the shape {shape}; " in said and advice in said and "\n" not in said


def test_channels_first():
    backend = keras.backend.backend()
    turned = nfspec.compile(small_spec(), backend, small_params(), data_format="channels_first")
    message = r"images \(N, 3, H, W\).* second place, or compile with data_format=\"channels_last\""
    with pytest.raises(nfspec.InputError, match=message):
        turned(np.zeros((2, 16, 16, 3), np.float32))


def test_other_errors_stay_as_they_are(model):
    with pytest.raises(TypeError):
        model(np.zeros((1, 16, 16, 3), np.float32), nothing=1)
