"""Training under Keras's `fit` with a recipe, against the float64 reference's training.

Three steps of a small network. In float32 a step's update is off by at most the gradients' error,
1e-5 of their norm (see test_golden.py), and an update is under a tenth of a parameter's norm, so
parameters stay within 3 · 1e-5 · 0.1 = 3e-6 of their norm; 1e-6 are for rounding what is stored.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

import nfspec
import nfspec.plan.clipping
from nfspec.backends.callbacks import ClipFraction
from nfspec.backends.optimizers import AGC, EMA
from nfspec.backends.optimizers.wrapper import first_of_kind

from .small import (
    IMAGES,
    SPEC,
    batches,
    reference_run,
    slow_where_compiled,
    small_params,
    small_plan,
    small_run,
    small_spec,
    some_compiled,
    with_recipe,
)
from golden import relative

STEPS = 3
BOUND = 4e-6


def furthest(params, exact):
    """The largest distance of a parameter, relative to its norm, and which it is."""
    return max(
        (relative(params[name], np.asarray(exact[name], np.float64)), name) for name in exact
    )


def compiled(backend, run, **options):
    model = nfspec.compile(small_spec(), backend, small_params())
    # Compiling with XLA takes TensorFlow longer than all the steps; one test below does.
    return run.compile(model, **({"jit_compile": backend == "jax"} | options)), model


def fit(model, steps=STEPS, accumulation=1, callbacks=()):
    x, labels, _ = batches(steps)
    size = IMAGES // accumulation
    return model.fit(
        x, labels, batch_size=size, shuffle=False, verbose=0, callbacks=list(callbacks)
    ).history


@cache
def whole_batches(backend):
    """A run of three steps: the model, and what a callback logged."""
    trained, _ = compiled(backend, small_run())
    return trained, fit(trained, callbacks=[ClipFraction(layers=True)])


def test_fit_is_the_references_training(backend):
    """Warm-up, label smoothing, clipping, decay, momentum and moving average at once."""
    trained, history = whole_batches(backend)
    state, reports = reference_run(small_run(), STEPS)
    assert furthest(nfspec.params_of(trained), state.params) <= (BOUND, "")
    assert furthest(nfspec.params_of(trained, average=True), state.averages) <= (BOUND, "")
    mean = np.mean([report.loss for report in reports])
    assert history["loss"] == pytest.approx([mean], rel=1e-5)


def test_the_recipe_moves_what_the_test_measures():
    """The bound above sees a missing decay, a cold average, another rate: each moves far more."""
    exact, _ = reference_run(small_run(), STEPS)
    for changes in ({"weight_decay": 0.0}, {"nesterov": False}, {"warmup_epochs": 4}):
        plan = with_recipe(small_plan(), **changes)
        other, _ = reference_run(small_run(plan), STEPS)
        assert furthest(other.params, exact.params)[0] > 3 * BOUND, changes
    cold = small_run(with_recipe(small_plan(), ema_warm=False))
    other, _ = reference_run(cold, STEPS)
    assert furthest(other.averages, exact.averages)[0] > 3 * BOUND


def test_callbacks_get_the_clip_fraction(backend):
    _, history = whole_batches(backend)
    _, reports = reference_run(small_run(), STEPS)
    rules = nfspec.plan.clipping.clip_rules(small_plan())

    def fraction(names):
        units = {name: rules[name].units for name in names}
        clipped = [sum(r.clip_fractions[n] * u for n, u in units.items()) for r in reports]
        return np.mean(clipped) / sum(units.values())

    names = list(reports[0].clip_fractions)
    assert history["clip_fraction"] == pytest.approx([fraction(names)], rel=1e-6)
    layer = "stages.0.blocks.0.conv1"
    of_layer = fraction([f"{layer}.{name}" for name in ("kernel", "gain", "bias")])
    assert 0 < of_layer < 1
    assert history[f"clip_fraction/{layer}"] == pytest.approx([of_layer], rel=1e-6)


@slow_where_compiled  # test_training_loop.py has two, against the reference
def test_four_micro_batches_are_one_step_clipped_once(backend):
    """Only the order of summing the gradients differs, a few roundings of a small update."""
    trained, model = compiled(backend, small_run(accumulation=4))
    history = fit(trained, accumulation=4, callbacks=[ClipFraction()])
    whole, of_whole = whole_batches(backend)
    assert furthest(nfspec.params_of(model), nfspec.params_of(whole)) <= (BOUND, "")
    averages = nfspec.params_of(trained, average=True)
    assert furthest(averages, nfspec.params_of(whole, average=True)) <= (BOUND, "")
    assert history["clip_fraction"] == pytest.approx(of_whole["clip_fraction"], rel=1e-6)
    assert int(trained.optimizer.iterations) == STEPS


# The ascent on a part of the batch is that on the whole batch and one function more.
ASCENTS = [(0.05, 1.0), (0.05, 0.5)]


@pytest.mark.parametrize(("rho", "fraction"), some_compiled(ASCENTS, ASCENTS[1:]))
def test_sam_is_the_references(backend, rho, fraction, monkeypatch):
    run = small_run(with_recipe(small_plan(), sam_rho=rho, sam_fraction=fraction))
    trained, model = compiled(backend, run)
    traced = []
    step = type(trained).train_step
    monkeypatch.setattr(
        type(trained), "train_step", lambda self, *args: traced.append(1) or step(self, *args)
    )
    history = fit(trained)
    assert len(traced) == (STEPS if backend == "torch" else 1)
    state, reports = reference_run(run, STEPS)
    plain, _ = reference_run(small_run(), STEPS)
    assert furthest(nfspec.params_of(model), state.params) <= (BOUND, "")
    assert furthest(plain.params, state.params)[0] > 3 * BOUND
    assert history["loss"] == pytest.approx([np.mean([r.loss for r in reports])], rel=1e-5)


def test_the_ascent_is_on_the_first_images_of_each_devices_part(backend):
    """So that none has to change its device; as many of each."""
    trained, _ = compiled(backend, small_run(with_recipe(small_plan(), sam_rho=0.05)))
    trained.fraction = 0.3
    x = keras.ops.reshape(keras.ops.arange(24), (12, 2))
    for parts, rows in (
        (1, [0, 1, 2, 3]),
        (2, [0, 1, 6, 7]),
        (6, [0, 2, 4, 6, 8, 10]),
        (5, [0, 1, 2, 3]),
    ):
        trained.parts = parts
        images, labels, weights = trained._first((x, x[:, 0], None))
        assert keras.ops.convert_to_numpy(images).tolist() == [[2 * r, 2 * r + 1] for r in rows]
        assert keras.ops.convert_to_numpy(labels).tolist() == [2 * r for r in rows]
        assert weights is None


def test_training_goes_on_after_saving_as_if_it_had_not_stopped(backend, tmp_path):
    """To the bit, with dropout and stochastic depth, whose seeds are saved too."""
    text = SPEC.replace("rate = 0.0", "rate = 0.25").replace("dropout = 0.0", "dropout = 0.2")
    text = text.replace("depth = [1]", "depth = [2]")  # the first block of all is never dropped
    text = text.replace("[stages]", '[block]\nconvs = 1\n[stages]\nattention = "none"')
    spec = small_spec(text)
    plan = nfspec.resolve(spec)
    run = small_run(plan)
    model = nfspec.compile(spec, backend, nfspec.init(plan))
    straight = run.compile(model, jit_compile=backend == "jax")
    fit(straight)
    straight.save(tmp_path / "stopped.keras")
    fit(straight)
    resumed = keras.saving.load_model(tmp_path / "stopped.keras")
    fit(resumed)
    for average in (False, True):
        expected = nfspec.params_of(straight, average=average)
        params = nfspec.params_of(resumed, average=average)
        differ = [name for name in expected if not np.array_equal(params[name], expected[name])]
        assert not differ
    assert first_of_kind(resumed.optimizer, AGC).agc == plan.agc


# float16 rounds and casts in the same places, and scales the loss; bfloat16 compiles with XLA.
@pytest.mark.parametrize("dtype", some_compiled(["bfloat16", "float16"], ["float16"]))
def test_mixed_precision_trains_float32_parameters(backend, dtype):
    """Operations round to 2^-9; with gradients off by some 30 such roundings, three updates of at
    most a tenth of a parameter's norm are off by 3 · 0.1 · 30 · 2^-9, which is 2 % of it. float16
    comes with a loss scale, bfloat16 here with XLA."""
    run = small_run()
    model = nfspec.compile(small_spec(), backend, small_params(), dtype=f"mixed_{dtype}")
    optimizer = run.optimizer()
    if dtype == "float16":  # Keras's own starts at 2^15, and skips steps until it has come down
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**8)
    # torch.compile needs a C++ compiler; without compilation, JAX runs operation by operation.
    jit = {"jax": True, "torch": False, "tensorflow": dtype == "bfloat16"}[backend]
    model.compile(optimizer, run.loss(), jit_compile=jit)
    history = fit(model, callbacks=[ClipFraction()])
    state, reports = reference_run(run, STEPS)
    kinds = {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables}
    assert kinds == {"float32"}
    assert furthest(nfspec.params_of(model), state.params) <= (0.02, "")
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == STEPS
    rules = nfspec.plan.clipping.clip_rules(small_plan())
    units = sum(rules[name].units for name in reports[0].clip_fractions)
    clipped = [f * rules[name].units for r in reports for name, f in r.clip_fractions.items()]
    # A few units in a hundred are within some per cent of their bound.
    assert history["clip_fraction"] == pytest.approx([sum(clipped) / STEPS / units], abs=0.03)


def test_swap_ema_weights_evaluates_the_averages(backend):
    trained, _ = whole_batches(backend)
    x, labels, _ = batches(1)
    averages = nfspec.params_of(trained, average=True)
    other = nfspec.compile(small_spec(), backend, averages)
    other.compile(loss=small_run().loss())
    expected = other.evaluate(x, labels, verbose=0)
    raw = trained.evaluate(x, labels, verbose=0)
    loss = trained.evaluate(x, labels, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    assert loss == pytest.approx(expected, rel=1e-6)
    assert abs(loss - raw) > 1e-4
    assert trained.evaluate(x, labels, verbose=0) == pytest.approx(raw, rel=1e-6)


def test_averages_are_refused_where_there_are_none(backend):
    model = nfspec.compile(small_spec(), backend, small_params())
    with pytest.raises(nfspec.WeightError, match="keeps no averages"):
        nfspec.params_of(model, average=True)
    model.compile(EMA(keras.optimizers.SGD(0.1)))
    with pytest.raises(nfspec.WeightError, match="before the first training step"):
        nfspec.params_of(model, average=True)


@pytest.mark.slow  # as test_devices
def test_two_devices_take_the_whole_batchs_step(backend, tmp_path):
    """Gradients are clipped after they are summed over devices, and everything happens once."""
    folder = Path(__file__).parents[2]
    path = os.pathsep.join([str(folder / "tests"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "tests.backends.parallel", tmp_path / "found.npz"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
    )
    state, reports = reference_run(small_run(), STEPS)
    with np.load(tmp_path / "found.npz") as arrays:
        exact = {f"param/{name}": value for name, value in state.params.items()}
        if backend != "torch":  # where torch.optim trains, which keeps no averages
            exact |= {f"average/{name}": value for name, value in state.averages.items()}
        assert furthest(arrays, exact) <= (BOUND, "")
        fractions = reports[-1].clip_fractions
        assert {name: arrays[f"clip/{name}"] for name in fractions} == pytest.approx(
            fractions, abs=1e-6
        )
