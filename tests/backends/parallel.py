"""Three steps of the small network on two devices, in a process of its own.

    python -m tests.backends.parallel OUT.npz    # with KERAS_BACKEND, from the project's folder

JAX and TensorFlow through Keras's `fit` on two virtual devices; PyTorch through
DistributedDataParallel and a torch.optim optimizer in two processes.
"""

import os
import sys
from tempfile import TemporaryDirectory

import numpy as np

import nfspec
from nfspec.compilation import select

from .small import IMAGES, batches, rate_at, small_params, small_plan, small_run, small_spec

BACKEND = os.environ["KERAS_BACKEND"]
STEPS = 3


def on_two_devices():
    if BACKEND == "jax":
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        select(BACKEND)
        import keras

        keras.distribution.set_distribution(keras.distribution.DataParallel())
        trained()
        return
    import tensorflow as tf

    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [device, device]
    )
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        trained()


def torch_process(rank, folder):
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from nfspec.backends.torch import agc

    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    plan, run = small_plan(), small_run()
    model = nfspec.compile(small_spec(), BACKEND, small_params())
    parallel = DistributedDataParallel(model)
    groups = {0.0: [], run.recipe.weight_decay: []}
    for variable in model.trainable_variables:
        groups[run.recipe.decay_of(variable.role)].append(variable.value)
    optimizer = torch.optim.SGD(
        [{"params": params, "weight_decay": decay} for decay, params in groups.items()],
        momentum=run.recipe.momentum,
        nesterov=run.recipe.nesterov,
    )
    clipping = agc(plan, optimizer, model)
    x, _, targets = batches(STEPS)
    for step in range(STEPS):
        half = slice(step * IMAGES + rank * IMAGES // 2, step * IMAGES + (rank + 1) * IMAGES // 2)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(run, step)
        optimizer.zero_grad()
        scores = torch.log_softmax(parallel(torch.from_numpy(x[half])), -1)
        (-(torch.from_numpy(targets[half]) * scores).sum(-1).mean()).backward()
        optimizer.step()
    if rank == 0:
        save(model, clip=clipping.clip_fraction)
    torch.distributed.destroy_process_group()


def trained():
    model = nfspec.compile(small_spec(), BACKEND, small_params())
    small_run().compile(model, jit_compile=BACKEND == "jax")
    x, labels, _ = batches(STEPS)
    model.fit(x, labels, batch_size=IMAGES, shuffle=False, verbose=0)
    fractions = model.optimizer.inner.clip_fractions()
    clip = {name: fraction for name, (fraction, _) in fractions.items()}
    save(model, clip=clip, average=nfspec.params_of(model, average=True))


def save(model, **groups):
    groups = {"param": nfspec.params_of(model), **groups}
    np.savez(
        sys.argv[1],
        **{
            f"{kind}/{name}": value
            for kind, named in groups.items()
            for name, value in named.items()
        },
    )


if __name__ == "__main__":
    if BACKEND == "torch":
        import torch

        with TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(torch_process, (folder,), nprocs=2)
    else:
        on_two_devices()
