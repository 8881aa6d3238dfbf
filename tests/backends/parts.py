"""Steps of the small network in parts over processes: called for rank 0, and run for each other.

python -m tests.backends.parts FOLDER RANK WORLD STEPS    # from the project's folder
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np

import nfspec
from nfspec.backends.kernels.torch_parts import own
from nfspec.backends.training import checkpoints
from nfspec.compilation import select

from .small import IMAGES, batches, rate_at, small_params, small_plan, small_run, small_spec

DIGEST = "0" * 64
WAYS = {"outputs": -1, "first axis": 0}  # the axis that a loop of somebody else's shards


def joined(folder, rank, world):
    import torch

    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )


def part(step, rank, world, of=1, which=0):
    """This process's images of a micro-batch: which of how many."""
    size = IMAGES // of // world
    first = step * IMAGES + which * IMAGES // of + rank * size
    return slice(first, first + size)


def trained(rank, world, steps, spread=None):
    """Keras's model and nfspec's optimizer, in two micro-batches a step; the losses."""
    model = nfspec.compile(small_spec(), "torch", small_params())
    small_run(accumulation=2).compile(model)
    model.optimizer.build(model.trainable_variables)
    if spread:
        spread(model, model.optimizer)
    x, labels, _ = batches(steps)
    losses = []
    for step in range(steps):
        for which in range(2):
            model.reset_metrics()
            rows = part(step, rank, world, 2, which)
            losses.append(model.train_on_batch(x[rows], labels[rows]))
    return model, losses


def sharded(model, axis, world):
    """A network whose parameters are in parts by an axis, and those that stay whole."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    rest = [p for p in model.parameters() if p.ndim == 0 or (axis and p.shape[-1] % world)]
    for name in ("stem", "stages"):  # these are never called
        assert not hasattr(model.get_submodule(name), "unshard")
    return fully_shard(
        model,
        shard_placement_fn=lambda p: Shard(p.ndim - 1 if axis else 0),
        ignored_params=set(rest),
    ), rest


def looped(rank, world, steps, axis=None):
    """A loop of somebody else's, with torch.optim and the hook: the model, losses, fractions."""
    import torch

    from nfspec.backends.torch import agc

    plan, run = small_plan(), small_run()
    model, whole = nfspec.compile(small_spec(), "torch", small_params()), []
    if axis is not None:
        model, whole = sharded(model, axis, world)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True)
    clipping = agc(plan, optimizer, model)
    x, _, targets = batches(steps)
    losses = []
    for step in range(steps):
        rows = part(step, rank, world)
        optimizer.param_groups[0]["lr"] = rate_at(run, step)
        optimizer.zero_grad()
        scores = torch.log_softmax(model(torch.from_numpy(x[rows])), -1)
        loss = -(torch.from_numpy(targets[rows]) * scores).sum(-1).mean()
        loss.backward()
        for parameter in whole:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= world
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, losses, clipping.clip_fraction


def bytes_of(model):
    tensors = [v.value for v in (*model.variables, *model.optimizer.variables)]
    return sum(own(t).untyped_storage().nbytes() for t in tensors if t.ndim > 1)


def mean(values, world):
    import torch

    total = torch.tensor(values, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return (total / world).tolist()


def run(folder, rank, world, steps):
    """Everything in parts: what this process sees, and a checkpoint in the folder."""
    import torch

    from nfspec.backends.parts import spread

    joined(folder, rank, world)
    model, losses = trained(rank, world, steps, spread)
    found = {"own": (nfspec.params_of(model), mean(losses, world))}
    found["averages"] = nfspec.params_of(model, average=True)
    found["bytes"] = bytes_of(model)
    with torch.inference_mode():
        found["logits"] = model(torch.from_numpy(batches(1)[0]), training=False).numpy()
    if rank == 0:
        position = checkpoints.Position(steps)
        checkpoints.save(folder, model, model.optimizer, position, DIGEST)
    else:
        checkpoints.take_part(model, model.optimizer)
    for way, axis in WAYS.items():
        model, losses, fractions = looped(rank, world, steps, axis)
        assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
        found[way] = (nfspec.params_of(model), mean(losses, world), fractions)
    torch.distributed.destroy_process_group()
    return found


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "torch"
    select("torch")
    np.random.seed(0)
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
