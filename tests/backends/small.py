"""A network small enough to be compiled often: one block, every role, no grouped convs."""

from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import pytest
from packaging.version import Version

import nfspec
from nfspec.backends.running import forward_function
from nfspec.conformance.cases.weights import trial_params

from specs import HEAD

SPEC = f"""{HEAD}
[stem]
width = [8]
kernel = 3
stride = [2]
[stages]
depth = [1]
width = [16]
stride = [1]
group_width = "none"
[stochastic_depth]
rate = 0.0
[head]
classes = 10
dropout = 0.0
[recipe]
learning_rate = 1.0     # a step moves a clipped unit by a hundredth of its norm
learning_rate_images = 0
weight_decay = 1e-3     # so that three steps show it
ema_decay = 0.2         # and the warm decay meets it
"""
DROPS = SPEC.replace("rate = 0.0", "rate = 0.5").replace("dropout = 0.0", "dropout = 0.5")
IMAGES = 8

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch")
# See docs/versions.md.
COMPILES = keras.backend.backend() != "torch" or (
    Version(version("torch")) >= Version("2.13") and Version(keras.__version__) >= Version("3.15")
)
compiles = pytest.mark.skipif(not COMPILES, reason="older versions cannot compile and export all")
# For tests that need a program of their own for each network, which JAX takes seconds to compile,
# and that test nothing of JAX alone.
slow_on_jax = pytest.mark.slow if keras.backend.backend() == "jax" else lambda test: test
# For those that test nothing of a framework alone, and that TensorFlow traces for seconds, too.
slow_where_compiled = slow_on_jax if keras.backend.backend() != "tensorflow" else pytest.mark.slow


def some_compiled(cases, kept):
    """Values of a test's parameters: all on PyTorch, which compiles nothing; on the others those
    that are kept, and the rest with the slow tests."""
    fast = cases if keras.backend.backend() == "torch" else kept
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in fast else pytest.mark.slow,
        )
        for case in cases
    ]


def outputs(model, x, training=False):
    """A model's outputs, an array or a dict of arrays by tap; its layers are called one by one,
    but on JAX, which would compile each operation by itself."""
    if keras.backend.backend() == "jax":
        return forward_function(model, training)(x)
    result = model(keras.ops.convert_to_tensor(x), training=training)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, result)


@cache
def small_spec(text=SPEC):
    with TemporaryDirectory() as folder:
        path = Path(folder, "small.toml")
        path.write_text(text)
        return nfspec.load(path)


@cache
def small_plan():
    return nfspec.resolve(small_spec())


@cache
def small_params():
    return trial_params(small_plan(), 0)


def small_run(plan=None, **options):
    """Forty steps of the recipe, of which tests take the first few."""
    return nfspec.recipe(plan or small_plan(), steps=40, batch=IMAGES, **options)


def rate_at(run, step):
    """The learning rate of a step, as the reference has it."""
    return nfspec.reference.training.learning_rate(
        step, run.learning_rate, run.steps, run.warmup, run.recipe.final_learning_rate
    )


def with_recipe(plan, **changes):
    return replace(plan, recipe=plan.recipe.model_copy(update=changes))


@cache
def batches(count):
    """Images and one-hot labels of so many batches, and the smoothed targets."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count * IMAGES, 16, 16, 3)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, len(x))]
    return x, labels, 0.9 * labels + 0.01


def reference_run(run, steps):
    """The float64 reference after so many steps of a run: its state, and a report of each step."""
    x, _, targets = batches(steps)
    state = nfspec.reference.TrainingState.start(run.plan, small_params())
    reports = []
    for i in range(steps):
        part = slice(i * IMAGES, (i + 1) * IMAGES)
        state, report = nfspec.reference.train_step(
            run.plan, state, x[part], targets[part], rate_at(run, i)
        )
        reports.append(report)
    return state, reports


def drawn(*shape, seed=0, mean=0.0):
    """Standard normal numbers from a seed, float32, moved by a mean."""
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(np.float32)
