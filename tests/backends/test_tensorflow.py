"""AGC in a training loop of TensorFlow: gradients that are missing or slices, and XLA."""

import os

import numpy as np
import pytest

import nfspec

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    pytest.skip("of TensorFlow", allow_module_level=True)

import tensorflow as tf

from nfspec.backends.tensorflow import agc

from .doors import PLAN, SOME, door, some


@pytest.mark.parametrize("compiled_by", ["tf.function", "XLA"])
def test_gradients_may_be_missing_or_slices(compiled_by):
    gradients, params = some()
    kernel = "stages.0.blocks.0.se.fc0.kernel"
    whole = door(gradients, params)
    other = tf.constant(np.roll(gradients[kernel], 1))

    @tf.function(jit_compile=compiled_by == "XLA")
    def clip(given):
        rows = len(gradients[kernel])
        # Every row in two parts of other directions, the second time from the last.
        order = tf.constant([*range(rows), *reversed(range(rows))])
        parts = tf.concat([given[kernel] + other, -other[::-1]], 0)
        slices = tf.IndexedSlices(parts, order)
        wanted = [None if n == "head.fc.bias" else given[n] for n in params]
        wanted[SOME.index(kernel)] = slices
        clipped_list = agc(
            PLAN, wanted, [tf.constant(p) for p in params.values()], names=list(params)
        )
        assert clipped_list[SOME.index("head.fc.bias")] is None
        return {n: g for n, g in zip(params, clipped_list, strict=True) if g is not None}

    clipped_list = clip({name: tf.constant(g) for name, g in gradients.items()})
    assert set(clipped_list) == set(SOME) - {"head.fc.bias"}
    for name, clipped in clipped_list.items():
        # (g + r) - r is off by a rounding of r, which may be much larger than an element of g.
        np.testing.assert_allclose(clipped, whole[name], atol=1e-5 * np.abs(whole[name]).max())


def test_mistakes_in_tensorflow():
    gradients, params = some()
    given, held = list(gradients.values()), [tf.Variable(p) for p in params.values()]
    with pytest.raises(nfspec.InputError, match=r"\(3, 3, 3, 16\).*names=\.\.\."):
        agc(PLAN, given, held)
    with pytest.raises(nfspec.InputError, match="a name for each of 6 tensors; found 5"):
        agc(PLAN, given, held, names=SOME[:5])
    with pytest.raises(nfspec.InputError, match="5 gradients for 6 variables"):
        agc(PLAN, given[:5], held, names=SOME)
    given[4] = given[4][:4]
    with pytest.raises(nfspec.InputError, match=r"head.fc.bias.*shape \(10,\); found \(4,\)"):
        agc(PLAN, given, held, names=SOME)
