"""AGC by canonical name, through the function for training loops of whichever framework runs."""

import keras
import numpy as np

from golden import golden

GOLDEN = golden("nfnet_tiny")
PLAN = GOLDEN.training_plan

# One of each role, and both kinds of kernel; the last is the one that is not clipped.
SOME = [
    "stem.conv0.kernel",
    "stem.conv0.gain",
    "stages.0.blocks.0.se.fc0.kernel",
    "stages.0.blocks.0.skip_gain",
    "head.fc.bias",
    "head.fc.kernel",
]


def some():
    """Gradients far beyond every bound, and the golden parameters."""
    rng = np.random.default_rng(0)
    params = {name: GOLDEN.params[name] for name in SOME}
    return {n: np.float32(1e3 * rng.standard_normal(p.shape)) for n, p in params.items()}, params


def torch_parameters(params, gradients=None):
    """PyTorch's parameters, with gradients if given."""
    import torch

    held = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    for name, gradient in (gradients or {}).items():
        held[name].grad = torch.tensor(gradient)
    return held


def door(gradients, params, plan=PLAN, **options):
    """Clipped gradients by canonical name, of such arrays by canonical name."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        from nfspec.backends.jax import agc

        clipping = agc(plan, **options)
        clipped, _ = jax.jit(clipping.update)(gradients, clipping.init(params), params)
    elif backend == "torch":
        import torch

        from nfspec.backends.torch import agc

        held = torch_parameters(params, gradients)
        optimizer = torch.optim.SGD(held.values(), lr=0.0)
        agc(plan, optimizer, held, **options)
        optimizer.step()
        clipped = {name: parameter.grad for name, parameter in held.items()}
    else:
        import tensorflow as tf

        from nfspec.backends.tensorflow import agc

        held = [tf.Variable(p) for p in params.values()]
        given = [tf.constant(gradients[name]) for name in params]
        run = tf.function(lambda g: agc(plan, g, held, list(params), **options))
        clipped = dict(zip(params, run(given), strict=True))
    return {name: np.asarray(clipped[name]) for name in params}
