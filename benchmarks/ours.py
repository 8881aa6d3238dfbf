"""nfspec's own work, on whichever framework Keras runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from nfspec import compilation
from nfspec.backends.running import caller
from nfspec.benchmarks import inputs
from nfspec.benchmarks.works import RATE, Setup, Work
from nfspec.plan.resolver import resolve


def forward(setup: Setup, **how: Any) -> Work:
    """As the framework's users run it: jitted on JAX, a graph on TensorFlow, eager on PyTorch."""
    backend = keras.backend.backend()
    spec = inputs.spec_of(setup)
    params = inputs.params_of(resolve(spec))
    if setup.narrow:
        how["dtype"] = "bfloat16"
    model = compilation.compile(spec, backend, params, **how)
    x = keras.ops.convert_to_tensor(inputs.images(setup))
    call = caller(model)
    if backend == "jax":
        return lambda: call(x).block_until_ready()
    if backend == "tensorflow":
        return lambda: call(x).numpy()
    return lambda: call(x)


def step(setup: Setup) -> Work:
    """Keras's `train_on_batch`, with AGC around the original's SGD; no average of the weights.

    Dropout and stochastic depth as the variant has them.
    """
    from nfspec.backends.optimizers import SGD

    spec = inputs.spec_of(setup)
    plan = resolve(spec)
    policy = "mixed_bfloat16" if setup.narrow else None
    model = compilation.compile(spec, keras.backend.backend(), inputs.params_of(plan), dtype=policy)
    model.compile(
        compilation.agc(plan, SGD(RATE, momentum=0.9, nesterov=True)),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    classes = inputs.classes_of(plan)
    y = np.eye(classes, dtype=np.float32)[inputs.labels(setup, classes)]
    # On the device, as a loop has them that reads ahead.
    x, y = map(keras.ops.convert_to_tensor, (inputs.images(setup), y))
    return lambda: model.train_on_batch(x, y)


def _torch_parts(setup: Setup) -> tuple[Any, Any, dict[str, Any]]:
    """Plan, model and gradients, which are kept as PyTorch keeps those of the parameters."""
    import torch

    spec = inputs.spec_of(setup)
    plan = inputs.clipped_whole(resolve(spec))
    model = compilation.compile(spec, "torch", inputs.params_of(plan))
    drawn = inputs.gradients(plan)
    gradients = {}
    for variable in model.trainable_variables:
        gradients[variable.canonical] = torch.empty_like(variable.value).copy_(
            torch.from_numpy(drawn[variable.canonical])
        )
    return plan, model, gradients


def agc(setup: Setup) -> Work:
    """The hook of `nfspec.backends.torch`, in place on `.grad`."""
    import torch

    from nfspec.backends.torch import agc

    plan, model, gradients = _torch_parts(setup)
    for variable in model.trainable_variables:
        variable.value.grad = gradients[variable.canonical]
    optimizer = torch.optim.SGD([v.value for v in model.trainable_variables], RATE)
    clipping = agc(plan, optimizer, model)
    return lambda: clipping._clip(optimizer)


def optimizer(setup: Setup) -> Work:
    """AGC around SGD, as Keras's training loop calls it."""
    import torch

    from nfspec.backends.optimizers import SGD

    plan, model, gradients = _torch_parts(setup)
    variables = model.trainable_variables
    stepper = compilation.agc(plan, SGD(RATE, momentum=0.9, nesterov=True))
    stepper.build(variables)
    given = [gradients[v.canonical] for v in variables]
    return torch.no_grad()(lambda: stepper.apply(given, variables))


MAKERS = {"forward": forward, "step": step, "agc": agc, "optimizer": optimizer}
