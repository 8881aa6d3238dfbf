"""Layers and steps on four devices of JAX with kernels whole or in parts, in another process.

    python -m tests.backends.jax_parts OUT.npz STEPS    # from the project's folder

With no steps it is layers alone. In bfloat16 a step alone: after it some kernels are rounded to
another number.
"""

import os
import sys

import numpy as np
from pages import blocks

import nfspec
from nfspec.compilation import select

from .small import (
    IMAGES,
    SPEC,
    batches,
    drawn,
    small_params,
    small_run,
    small_spec,
    with_recipe,
)

DEVICES = 4
GROUPED = SPEC.replace('group_width = "none"', "group_width = 4")


def places():
    """The ways in which kernels are on the devices, by name."""
    import jax
    import keras

    from nfspec.backends.kernels.jax_parts import Parts

    return {"whole": keras.distribution.DataParallel(), "parts": Parts(jax.devices())}


def small():
    model = nfspec.compile(small_spec(), "jax", small_params())
    return model, small_run().compile(model)


def sharp():
    """With grouped convs, SAM on half of the images, and blocks that are computed again."""
    plan = with_recipe(nfspec.resolve(small_spec(GROUPED)), sam_rho=0.05, sam_fraction=0.5)
    model = nfspec.compile(plan, "jax", nfspec.init(plan, seed=1), remat="block")
    return model, small_run(plan).compile(model)


def narrow():
    plan = nfspec.resolve(small_spec(GROUPED))
    model = nfspec.compile(plan, "jax", nfspec.init(plan, seed=1), dtype="mixed_bfloat16")
    return model, small_run(plan).compile(model)


def trained(made, steps):
    """A network and what trains it, and the losses of so many steps."""
    model, trainer = made()
    x, labels, _ = batches(steps)
    losses = []
    for step in range(steps):
        rows = slice(step * IMAGES, (step + 1) * IMAGES)
        trainer.reset_metrics()
        losses.append(trainer.train_on_batch(x[rows], labels[rows], return_dict=True)["loss"])
    return model, trainer, losses


def bytes_of(model, optimizer):
    """Bytes of kernels, momentum and averages on the first device."""
    values = [v.value for v in (*model.variables, *optimizer.variables)]
    return sum(value.addressable_shards[0].data.nbytes for value in values if value.ndim > 1)


LAYERS = {  # shapes of kernels
    "conv": (3, 3, 16, 8),
    "grouped": (3, 3, 4, 8),
    "one pixel": (1, 1, 16, 24),
    "six outputs": (1, 1, 16, 6),
    "dense": (16, 12),
}


def gradients(shape, distribution):
    """A layer's gradients by its images, kernel and bias, and the places of the kernel's."""
    import jax
    import jax.numpy as jnp

    from nfspec.backends.kernels import jax as kernels

    def loss(x, kernel, bias):
        if len(shape) == 2:
            return jnp.sum(jnp.sin(kernels.dense(x, kernel, bias)))
        y = kernels.convolve(x, kernel, bias, 2, "symmetric", "channels_last", 1)
        return jnp.sum(jnp.sin(y))

    x = drawn(*((8, 16) if len(shape) == 2 else (8, 7, 6, 16)))
    x = jax.device_put(x, distribution.get_data_layout(x.shape).backend_layout)
    kernel, bias = drawn(*shape, seed=1), drawn(shape[-1], seed=2)
    return jax.jit(jax.grad(loss, (0, 1, 2)))(x, kernel, bias)


def of_images_that_do_not_divide():
    """A conv's gradients of six images, and of each image alone."""
    import jax
    import jax.numpy as jnp

    from nfspec.backends.kernels import jax as kernels
    from nfspec.backends.kernels.jax_parts import parts

    def loss(kernel, x):
        how = (2, "symmetric", "channels_last", 1)
        return jnp.sum(jnp.sin(kernels.convolve(x, kernel, jnp.zeros(8), *how)))

    kernel, x = drawn(3, 3, 16, 8, seed=1), drawn(8, 7, 6, 16)
    yield jax.jit(jax.grad(loss))(kernel, x[:6])
    if parts() is not None:  # XLA's own gradients of each of images in parts are wrong (JAX 0.10)
        x = jax.device_put(x, parts().images)
    alone = jax.vmap(lambda kernel, x: jax.grad(loss)(kernel, x[None]), (None, 0))
    yield jax.jit(alone)(kernel, x)


def of_layers(way, distribution):
    for number, gradient in enumerate(of_images_that_do_not_divide()):
        yield f"uneven/{way}/{number}", np.asarray(gradient)
    for name, shape in LAYERS.items():
        for number, gradient in enumerate(gradients(shape, distribution)):
            yield f"{name}/{way}/{number}", np.asarray(gradient)
            yield f"{name}/{way}/part {number}", gradient.addressable_shards[0].data.shape


def page():
    """The program of docs/several-devices.md: bytes of a device's parts, and of all."""
    (program,) = [each for each in blocks("docs/several-devices.md", "python") if "jax" in each]
    names = {}
    exec(program, names)
    import jax

    arrays = jax.tree.leaves((names["params"], names["state"]))
    yield "page/part", sum(array.addressable_shards[0].data.nbytes for array in arrays)
    yield "page/whole", sum(array.nbytes for array in arrays)
    yield "page/loss", float(names["value"])


def found(steps):
    if steps:
        yield from page()
    for way, distribution in places().items():
        with distribution.scope():
            if not steps:
                yield from of_layers(way, distribution)
                continue
            for made, count in ((small, steps), (sharp, steps), (narrow, 1)):
                model, trainer, losses = trained(made, count)
                where = f"{made.__name__}/{way}"
                yield f"{where}/losses", losses
                yield f"{where}/bytes", bytes_of(model, trainer.optimizer)
                for name, value in nfspec.params_of(model).items():
                    yield f"{where}/{name}", value
                for number, variable in enumerate(trainer.optimizer.variables):
                    yield f"{where}/{number}", np.asarray(variable.value)


if __name__ == "__main__":
    # XLA may leave out roundings to bfloat16 between operations that it fuses, and it fuses others
    # where kernels are whole.
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_allow_excess_precision=false"
    os.environ["XLA_FLAGS"] = flags
    select("jax")
    np.savez(sys.argv[1], **dict(found(int(sys.argv[2]))))
