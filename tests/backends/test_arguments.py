"""Every function refuses what is no model, optimizer or plan, in one sentence."""

import keras
import pytest

import nfspec
from nfspec.errors import InputError

from .small import small_params, small_plan, small_run, small_spec


@pytest.mark.parametrize("value", [None, "model", 1, [], small_plan()])
@pytest.mark.parametrize(
    "door",
    [nfspec.names_of, nfspec.params_of, nfspec.sam, small_run().compile, nfspec.fold],
    ids=["names_of", "params_of", "sam", "Run.compile", "fold"],
)
def test_what_is_no_model_is_a_sentence(door, value):
    with pytest.raises(InputError, match=r"^(model: expected a Keras model|fold: a plan has no)"):
        door(value)


@pytest.mark.parametrize("value", [None, "sgd", 0.1, keras.optimizers.SGD])
def test_what_is_no_optimizer_is_a_sentence(value):
    with pytest.raises(InputError, match=r"^optimizer: expected "):
        nfspec.agc(small_plan(), value)


def test_an_average_that_is_no_flag_is_a_sentence(backend):
    model = nfspec.compile(small_spec(), backend, small_params())
    with pytest.raises(InputError, match=r"^average: expected True or False; found 'yes'"):
        nfspec.params_of(model, average="yes")


@pytest.mark.parametrize("params", [3, "weights.safetensors", [], {"stem": 1}])
@pytest.mark.parametrize("folded", [False, True])
def test_parameters_that_are_none_are_a_sentence(backend, params, folded):
    with pytest.raises(nfspec.WeightError):
        nfspec.compile(small_spec(), backend, params, folded=folded)
