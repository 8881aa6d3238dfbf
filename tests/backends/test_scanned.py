"""Equal blocks as a loop are the same network: `benchmarks.depth` measures the same work."""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.conformance.cases.weights import trial_params

if keras.backend.backend() != "jax":
    pytest.skip("loops over blocks are JAX's", allow_module_level=True)

import jax

from nfspec.benchmarks import depth, equal

OVER = {
    "stages.depth": [1, 1, 4, 1],
    "stages.width": [16, 16, 32, 32],
    "stages.group_width": 8,
    "stem.width": [4, 4, 8, 8],
    "head.classes": depth.CLASSES,
    "stochastic_depth.rate": 0.5,
}


def made():
    spec = nfspec.load("nfnet-f0", OVER)
    return nfspec.compile(spec, "jax", trial_params(nfspec.resolve(spec), 0))


def test_equal_blocks_after_a_stages_first_are_one_loop():
    loops = equal.equal_blocks(made())
    names = [[region.steps[0].layer.canonical for region in loop] for loop in loops]
    (loop,) = (each for each in names if len(each) > 1)
    assert {name.rpartition(".blocks.")[0] for name in loop} == {"stages.2"}
    assert [name.split(".")[3] for name in loop] == ["1", "2", "3"]


@pytest.mark.slow  # compiles two programs of seven blocks
def test_a_loop_has_the_loss_and_the_gradients_of_its_blocks():
    model = made()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 32, 32, 3), np.float32)
    y = np.eye(depth.CLASSES, dtype="float32")[:4]
    given = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    (loss, plain), (looped, found) = (
        jax.jit(depth.gradients(model, way))(given, rest, x, y) for way in (False, True)
    )
    assert float(loss) == pytest.approx(float(looped), rel=1e-6)
    # Another order of products in the scale of a kernel, a rounding each; seven blocks of them.
    for name, one, other in zip(nfspec.names_of(model), plain, found, strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(one), name
