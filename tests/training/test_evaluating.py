"""Arguments of an evaluation from Python; tests/cli/test_evaluate.py has whole ones."""

import numpy as np
import pytest

import nfspec
from nfspec.data.sources import Source
from nfspec.training.evaluating import _spread, evaluate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch: expected a whole number of images from 1 on; found 0"),
        ({"size": -1}, "size: expected a whole number of px from 1 on; found -1"),
    ],
)
def test_a_number_that_makes_no_evaluation_is_refused_before_anything_is_read(arguments, message):
    with pytest.raises(nfspec.InputError) as error:
        evaluate("no/such/spec.toml", "no/such/folder", "no/such/weights", **arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("names", "labels"), [(("1", "3"), [1, 3, 1]), (("1", "4"), None), (("1", "cat"), None)]
)
def test_classes_that_are_numbers_may_lack_some(names, labels):
    images = Source(names, np.array([0, 1, 0]), ("a", "b", "c"), lambda number: None)
    found = _spread(images, 4)
    if labels is None:
        assert found is images
    else:
        assert found.classes == ("0", "1", "2", "3") and found.labels.tolist() == labels
