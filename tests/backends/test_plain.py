"""A network compiled with `plain=True`, and all that trains it, uses the plain kernels alone."""

import inspect

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.kernels import kernels
from nfspec.backends.layers.base import NFLayer
from nfspec.backends.optimizers import AGC, SGD
from nfspec.backends.optimizers.wrapper import first_of_kind

from .doors import door, some
from .small import (
    IMAGES,
    batches,
    slow_on_jax,
    small_params,
    small_plan,
    small_run,
    small_spec,
    with_recipe,
)
from golden import relative

FAST, PLAIN = kernels(plain=False), kernels(plain=True)
# Kernels of the framework's own; the others are the plain twins by another name.
OWN = sorted(
    name
    for name, function in inspect.getmembers(FAST, inspect.isfunction)
    if not name.startswith("_") and getattr(PLAIN, name, function) is not function
)


@pytest.fixture
def called(monkeypatch):
    """Names of the framework's own kernels, in which the tests see what was called."""
    names = set()

    def watched(name, function):
        def watching(*args, **kwargs):
            names.add(name)
            return function(*args, **kwargs)

        return watching

    for name in OWN:
        monkeypatch.setattr(FAST, name, watched(name, getattr(FAST, name)))
    return names


def model_of(backend, plain):
    return nfspec.compile(small_spec(), backend, small_params(), plain=plain)


@slow_on_jax
def test_plain_is_plain_throughout(backend, called):
    """Compile, train with everything a recipe has, evaluate, and fold."""
    x, labels, _ = batches(1)
    model = model_of(backend, plain=True)
    run = small_run(with_recipe(small_plan(), sam_rho=0.05))
    trainer = run.compile(model, jit_compile=backend == "jax")
    trainer.fit(x, labels, batch_size=IMAGES, verbose=0)
    trainer.evaluate(x, labels, batch_size=IMAGES, verbose=0)
    nfspec.fold(model).predict(x, verbose=0)
    assert all(first_of_kind(trainer.optimizer, kind).plain for kind in (AGC, SGD))
    assert called == set()


def test_the_frameworks_own_kernels_are_used_otherwise(backend, called):
    model = model_of(backend, plain=False)
    x = batches(1)[0][:1]
    folded = nfspec.fold(model).predict(x, verbose=0)
    # Rounding of a network of a few layers, and of folding it.
    assert relative(folded, model.predict(x, verbose=0).astype(np.float64)) < 1e-5
    optimizer = small_run().compile(model).optimizer
    assert not any(first_of_kind(optimizer, kind).plain for kind in (AGC, SGD))
    if backend != "jax":  # which has no kernels of its own for this, and would compile each
        weights = model.trainable_variables
        optimizer.build(weights)
        optimizer.apply([keras.ops.ones_like(v) for v in weights], weights)
    # Pooling, addition and draws differ on PyTorch alone, and in training; the gates of this
    # network multiply no images, but the branches that are added.
    assert called >= set(OWN) - {"average_pool", "gated", "scale_add", "uniform"}


def test_plain_is_part_of_what_is_saved(backend):
    model = model_of(backend, plain=True)
    agc = first_of_kind(small_run().optimizer(plain=True), AGC)
    for layer in model.layers:
        if isinstance(layer, NFLayer):
            assert type(layer).from_config(layer.get_config()).plain
    again = AGC.from_config(agc.get_config())
    assert again.plain
    assert first_of_kind(again, SGD).plain


def test_configurations_from_before_there_was_plain_can_be_read(backend):
    model = model_of(backend, False)
    agc = first_of_kind(small_run().optimizer(), AGC)
    for thing in (*model.layers[1:4], agc.inner, agc):
        config = thing.get_config()
        assert config.pop("plain") is False
        assert type(thing).from_config(config).plain is False


@pytest.mark.parametrize("plain", [False, True])
def test_clipping_in_other_loops_is_plain_where_it_is_asked_to_be(backend, called, plain):
    door(*some(), plain=plain)
    assert called == (set() if plain else set(OWN) & {"clip_all"})
