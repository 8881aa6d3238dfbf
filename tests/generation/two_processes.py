"""A step of a generated PyTorch network in two processes, by DDP and by FSDP2: run for each rank.

    python two_processes.py FOLDER RANK

FOLDER has `net.py`, its weights, and a batch, of which each process takes an image. Rank 0 writes
`ddp.npz` and `fsdp.npz`: the loss, each gradient, and each one clipped.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

FOLDER, RANK = Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, str(FOLDER))
import net  # noqa: E402


def network():
    model = net.NFNet(drop_rate=0.0, drop_path_rate=0.0)
    net.load_weights(model, str(FOLDER / "w.safetensors"))
    return model


def sharded(model):
    """The model with each block's parameters over the processes, and the scalars left whole."""
    # FSDP2 takes no scalars. A list: each process has to add up their gradients in one order.
    gains = [p for p in model.parameters() if p.ndim == 0]
    for stage in model.stages:
        for block in stage.blocks:
            fully_shard(block, ignored_params=set(gains))
    return fully_shard(model, ignored_params=set(gains)), gains


def gradients(model):
    named = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    whole = {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in named.items()}
    return {name: g.numpy().copy() for name, g in whole.items()}


def run(name, model, module, gains=()):
    x, targets = (torch.from_numpy(np.load(FOLDER / f"{each}.npy")) for each in ("x", "targets"))
    part = slice(RANK, RANK + 1)
    images = x.permute(0, 3, 1, 2)[part]
    loss = torch.nn.functional.cross_entropy(model(images), targets[part])
    loss.backward()
    for shared in (loss.detach(), *(p.grad for p in gains)):
        dist.all_reduce(shared)
        shared /= dist.get_world_size()
    whole = gradients(model)
    net.clip_gradients_(module)
    clipped = gradients(model)
    if RANK == 0:
        named = {f"clipped/{key}": value for key, value in clipped.items()}
        np.savez(FOLDER / f"{name}.npz", loss=loss.detach().numpy(), **whole, **named)


if __name__ == "__main__":
    torch.set_num_threads(1)
    store = (FOLDER / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=RANK, world_size=2)
    model = network()
    run("ddp", DistributedDataParallel(model), model)
    model, gains = sharded(network())
    run("fsdp", model, model, gains)
    dist.destroy_process_group()
