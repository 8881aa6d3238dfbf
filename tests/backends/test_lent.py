"""A model has its values after a step that failed, where Keras had taken them out."""

import keras
import numpy as np
import pytest

import nfspec

from .small import small_params, small_spec

X = np.ones((4, 16, 16, 3), np.float32)


@pytest.fixture
def model():
    return nfspec.compile(small_spec(), keras.backend.backend(), small_params())


def values(model):
    return {name: array.copy() for name, array in nfspec.params_of(model).items()}


def unharmed(model, before):
    after = nfspec.params_of(model)
    return all(np.array_equal(after[name], array) for name, array in before.items())


def test_images_of_a_wrong_shape(model):
    before = values(model)
    with pytest.raises(nfspec.InputError, match="expected images"):
        model.predict(X.transpose(0, 3, 1, 2), verbose=0)
    assert unharmed(model, before)
    assert np.isfinite(model.predict(X, verbose=0)).all()


@pytest.mark.parametrize("what", ["fit", "evaluate"])
def test_an_interrupted_first_step(model, what, monkeypatch):
    trainer = nfspec.recipe(model.plan, steps=2, batch=4).compile(model)

    def interrupted(*_):
        raise KeyboardInterrupt

    before, labels = values(trainer), np.arange(4) % model.output.shape[-1]
    step = {"fit": "train_step", "evaluate": "test_step"}[what]
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer), step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(trainer, what)(X, labels, batch_size=4, verbose=0)
    assert unharmed(trainer, before)
    assert trainer._lent == ()
