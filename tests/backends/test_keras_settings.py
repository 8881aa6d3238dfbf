"""Settings of Keras change nothing that a spec, a recipe or an argument states."""

import warnings
from functools import cache

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

import nfspec
from nfspec.backends.optimizers import SGD

from .small import (
    IMAGES,
    batches,
    outputs,
    slow_where_compiled,
    small_params,
    small_run,
    small_spec,
)

pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX's


@pytest.fixture
def settings():
    kept = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
    policy = keras.config.dtype_policy()

    def change(floatx, epsilon, layout):
        keras.config.set_floatx(floatx)
        keras.config.set_epsilon(epsilon)
        keras.config.set_image_data_format(layout)
        global_state.set_global_attribute("dtype_policy", None)  # as when Keras is imported

    yield change
    change(*kept)
    keras.config.set_dtype_policy(policy)


def forward(backend, **options):
    model = nfspec.compile(small_spec(), backend, small_params(), taps=True, **options)
    return outputs(model, batches(2)[0][:2])


def trained(backend, **options):
    """All that a step of training leaves, and what Keras reports of it."""
    x, labels, _ = batches(2)
    model = small_run().compile(nfspec.compile(small_spec(), backend, small_params(), **options))
    history = model.fit(x, labels, batch_size=IMAGES, shuffle=False, verbose=0).history
    state = {
        str(i): keras.ops.convert_to_numpy(v)
        for i, v in enumerate(model.variables + model.optimizer.variables)
    }
    return {**state, "loss": np.float64(history["loss"])}


def bits(values):
    return {name: (value.dtype.name, value.tobytes()) for name, value in values.items()}


@cache
def by_default(what, backend):
    return bits(what(backend))


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("options", [{"dtype": "float32"}, {}], ids=["said", "not said"])
@pytest.mark.filterwarnings("ignore:Keras is set to floatx")
def test_outputs_are_the_same_bits_whatever_keras_is_told(backend, settings, floatx, options):
    wanted = by_default(forward, backend)
    settings(floatx, 0.1, "channels_first")
    assert bits(forward(backend, **options)) == wanted


def test_mixed_precision_is_the_same_bits_whatever_keras_is_told(backend, settings):
    wanted = bits(forward(backend, dtype="mixed_bfloat16", plain=True))
    settings("float16", 0.1, "channels_first")
    assert bits(forward(backend, dtype="mixed_bfloat16", plain=True)) == wanted


@slow_where_compiled
def test_training_is_the_same_bits_whatever_keras_is_told(backend, settings):
    wanted = by_default(trained, backend)
    settings("float16", 0.1, "channels_first")
    arrays = bits(trained(backend, dtype="float32"))
    assert [name for name in wanted if arrays[name] != wanted[name]] == []


def test_a_floatx_that_is_not_followed_is_said(backend, settings):
    settings("float16", 1e-7, "channels_last")
    with pytest.warns(UserWarning, match='floatx float16.*compiled in float32.*dtype="float16"'):
        model = nfspec.compile(small_spec(), backend, small_params())
    assert model.dtype_policy.name == "float32"
    assert {str(v.dtype) for v in model.trainable_variables} == {"float32"}


def test_a_policy_that_the_user_set_is_followed(backend, settings):
    settings("float16", 1e-7, "channels_last")
    keras.config.set_dtype_policy("mixed_bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nfspec.compile(small_spec(), backend, small_params())
    assert model.dtype_policy.name == "mixed_bfloat16"


def test_a_learning_rate_is_not_rounded_to_floatx(backend, settings):
    settings("float16", 1e-7, "channels_last")
    rate = keras.ops.convert_to_numpy(SGD(0.1).learning_rate)
    assert rate.dtype == np.float32 and rate == np.float32(0.1)


@pytest.mark.parametrize("dtype", ["int8", "float23", "mixed", object, 1, "", "auto"])
def test_a_dtype_that_is_no_policy_is_a_sentence(backend, dtype):
    with pytest.raises(nfspec.InputError, match=r'dtype: expected one of "float32", .* found'):
        nfspec.compile(small_spec(), backend, small_params(), dtype=dtype)
