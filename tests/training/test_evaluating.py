"""Arguments of an evaluation from Python; tests/cli/test_evaluate.py has whole ones."""

import pytest

import nfspec
from nfspec.training.evaluating import evaluate


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
