"""Each kernel beside its plain twin, at shapes of NFNet-F0's third stage, four images at 192 px.

    KERAS_BACKEND=torch python -m pytest benchmarks/kernels --benchmark-only

A kernel that is not faster than its twin on any framework has no reason to be there. Compare the
two rows of a group, by their ratio.
"""

import keras
import numpy as np
import pytest
from keras import ops

from nfspec.backends.kernels import kernels
from nfspec.plan.clipping import ClipRule

BACKEND = keras.backend.backend()
MODULES = {"kernel": kernels(False), "plain": kernels(True)}
STANDARD = {"eps": 1e-4, "eps_rule": "max", "ddof": 0, "gamma": 1.7}
LAST = "channels_last"


def drawn(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


WORKS = {
    "conv 1x1": (
        lambda m, x, k, b: m.convolve(x, k, b, 1, "same", LAST, 1),
        (drawn(4, 12, 12, 1536), drawn(1, 1, 1536, 768), drawn(768)),
    ),
    "conv 3x3, 6 groups": (
        lambda m, x, k, b: m.convolve(x, k, b, 1, "same", LAST, 1),
        (drawn(4, 12, 12, 768), drawn(3, 3, 128, 768), drawn(768)),
    ),
    "standardise": (
        lambda m, k, g: m.standardise(k, g, **STANDARD),
        (drawn(3, 3, 128, 768), drawn(768)),
    ),
    "gelu_tanh": (lambda m, x: m.activate("gelu_tanh")(x), (drawn(4, 12, 12, 768),)),
    "scale_add": (
        lambda m, x, s, y: m.scale_add(x, s, y),
        (drawn(4, 12, 12, 1536), drawn(4, 1, 1, 1536), drawn(4, 12, 12, 1536)),
    ),
    "average_pool": (
        lambda m, x: m.average_pool(x, 2, 2, "same", LAST),
        (drawn(4, 24, 24, 512),),
    ),
    "dense": (lambda m, x, k, b: m.dense(x, k, b), (drawn(4, 1536), drawn(1536, 768), drawn(768))),
}


def _ready(function, arrays, gradients):
    """A function without arguments that evaluates, or differentiates, and waits."""
    tensors = [ops.convert_to_tensor(a) for a in arrays]
    if BACKEND == "jax":
        import jax

        def both(*a):
            y, back = jax.vjp(function, *a)
            return back(y)

        jitted = jax.jit(both if gradients else function)
        return lambda: jax.block_until_ready(jitted(*tensors))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def graph(*a):
            if not gradients:
                return function(*a)
            with tf.GradientTape() as tape:
                tape.watch(a)
                y = function(*a)
            return tape.gradient(y, a, y)

        return lambda: tf.nest.map_structure(lambda t: t.numpy(), graph(*tensors))
    import torch

    if not gradients:
        return torch.inference_mode()(lambda: function(*tensors))
    tensors = [t.requires_grad_() for t in tensors]

    def run():
        y = function(*tensors)
        torch.autograd.grad(y, tensors, y.detach())

    return run


@pytest.mark.parametrize("which", MODULES)
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", WORKS)
def test_kernel(benchmark, name, gradients, which):
    module, (function, arrays) = MODULES[which], WORKS[name]
    kept = [ops.convert_to_tensor(ops.convert_to_numpy(a)) for a in arrays]
    benchmark.group = f"{name}, {'forward and back' if gradients else 'forward'}"
    run = _ready(lambda *a: function(module, *a), kept, gradients)
    run()
    benchmark(run)


@pytest.mark.parametrize("which", MODULES)
def test_clip_all(benchmark, which):
    module = MODULES[which]
    rules = [ClipRule((0, 1, 2), 768, 0.01, 1e-3)] * 10
    tensors = [[ops.convert_to_tensor(drawn(3, 3, 128, 768)) for _ in rules] for _ in "gw"]
    benchmark.group = "clip_all, ten tensors"
    if BACKEND == "jax":
        import jax

        jitted = jax.jit(lambda g, w: module.clip_all(g, w, rules)[0])
        benchmark(lambda: jax.block_until_ready(jitted(*tensors)))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda g, w: module.clip_all(g, w, rules)[0], autograph=False)
        benchmark(lambda: [t.numpy() for t in graph(*tensors)])
    else:
        benchmark(lambda: module.clip_all(*tensors, rules))
