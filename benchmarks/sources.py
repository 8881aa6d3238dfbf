"""Generated sources, as their users run them: eager or compiled on PyTorch, jitted on JAX."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from nfspec.benchmarks import inputs
from nfspec.benchmarks.device import narrowed, placed
from nfspec.benchmarks.works import RATE, Setup, Work
from nfspec.generation.native import module, native
from nfspec.rewrites.folding import fold


def _network(setup: Setup, to: str, folded: bool) -> Any:
    plan = inputs.plan_of(setup)
    params = inputs.params_of(plan)
    return native(fold(plan, params), to) if folded else native(plan, to, params=params)


def torch(
    setup: Setup, folded: bool = False, compiled: bool = False, channels_last: bool = False
) -> Work:
    import torch

    model = placed(_network(setup, "torch", folded).eval())
    x = placed(torch.from_numpy(inputs.images_nchw(setup)))
    if channels_last:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    if setup.narrow:
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    if compiled:
        model = torch.compile(model, fullgraph=True, dynamic=False)
    return torch.inference_mode()(lambda: model(x))


def jax(setup: Setup, folded: bool = False) -> Work:
    import jax

    file, params = _network(setup, "jax", folded)
    x, apply = _images(setup), jax.jit(file.apply)
    return lambda: apply(params, x).block_until_ready()


def _images(setup: Setup) -> Any:
    """Images on JAX, of the dtype to compute in."""
    import jax

    dtype = jax.numpy.bfloat16 if setup.narrow else jax.numpy.float32
    return jax.numpy.asarray(inputs.images(setup), dtype)


def flax(setup: Setup, folded: bool = False) -> Work:
    import jax
    from flax import nnx

    model = _network(setup, "flax", folded)
    if not folded:  # nothing drops in a folded one, and Flax refuses to turn nothing off
        model.eval()
    definition, state = nnx.split(model)
    x = jax.numpy.asarray(inputs.images(setup))
    apply = jax.jit(lambda state, x: nnx.merge(definition, state)(x))
    return lambda: apply(state, x).block_until_ready()


def keras(setup: Setup, folded: bool = False) -> Work:
    """On whichever framework Keras runs."""
    import keras

    from nfspec.backends.running import caller

    call = caller(_network(setup, "keras", folded))
    x = keras.ops.convert_to_tensor(inputs.images(setup))
    if keras.backend.backend() == "jax":
        return lambda: call(x).block_until_ready()
    if keras.backend.backend() == "tensorflow":
        return lambda: call(x).numpy()
    return lambda: call(x)


def mlx(setup: Setup, folded: bool = False) -> Work:
    import mlx.core as mx

    model = _network(setup, "mlx", folded).eval()
    x, apply = mx.array(inputs.images(setup)), mx.compile(model)
    return lambda: mx.eval(apply(x))


def torch_step(setup: Setup, channels_last: bool = False, compiled: bool = False) -> Work:
    """The file's parameter groups and clipping, and PyTorch's SGD; it drops as the variant does."""
    import torch

    plan = inputs.plan_of(setup)
    model = placed(native(plan, "torch", params=inputs.params_of(plan)).train())
    clip_gradients_ = module(plan, "torch").clip_gradients_
    x = placed(torch.from_numpy(inputs.images_nchw(setup)))
    y = placed(torch.from_numpy(inputs.labels(setup, inputs.classes_of(plan))))
    if channels_last:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    network = torch.compile(model, fullgraph=True, dynamic=False) if compiled else model
    groups = model.parameter_groups(weight_decay=0.0)
    optimizer = torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True)

    def run() -> None:
        optimizer.zero_grad()
        with narrowed(setup.narrow):
            loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        clip_gradients_(model)
        optimizer.step()

    return run


def jax_step(setup: Setup) -> Work:
    """One jitted function; parameters and the optimizer's state are donated to it."""
    import jax
    import optax

    plan = inputs.plan_of(setup)
    file, params = native(plan, "jax", params=inputs.params_of(plan))
    x = _images(setup)
    y = jax.numpy.asarray(inputs.labels(setup, inputs.classes_of(plan)).astype(np.int32))
    optimizer = optax.chain(
        optax.stateless(file.clip_gradients), optax.sgd(RATE, momentum=0.9, nesterov=True)
    )

    # A file has the argument where its network drops at random.
    drops = "key" in inspect.signature(file.apply).parameters

    def loss(params: Any, key: Any) -> Any:
        logits = file.apply(params, x, key=key) if drops else file.apply(params, x)
        wide = logits.astype(jax.numpy.float32)
        return optax.softmax_cross_entropy_with_integer_labels(wide, y).mean()

    def update(params: Any, state: Any, key: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, key)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, jax.random.split(key)[0], value

    held = [params, optimizer.init(params), jax.random.key(0)]
    jitted = jax.jit(update, donate_argnums=(0, 1))

    def run() -> None:
        *held[:], value = jitted(*held)
        jax.block_until_ready((held, value))

    return run


MAKERS: dict[str, Callable[..., Work]] = {
    "torch": torch,
    "jax": jax,
    "flax": flax,
    "keras": keras,
    "mlx": mlx,
    "torch_step": torch_step,
    "jax_step": jax_step,
}
