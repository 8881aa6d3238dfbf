"""A network of PyTorch in parts over processes, by FSDP2: kernels, and what its optimizer keeps.

Each process keeps the same share of the output channels of each kernel, so that units of AGC are
whole in one process. Gains, biases and scalars, and kernels whose outputs do not divide among the
processes, stay whole in each. A block's kernels are gathered before it is computed, and let go of
after it; gradients are averaged over the processes in the dtype of the parameters.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed

from nfspec.backends.kernels.torch_parts import in_parts, own
from nfspec.backends.network import Network
from nfspec.backends.optimizers.wrapper import OptimizerWrapper
from nfspec.errors import BackendError
from nfspec.plan.counting import divides

NEEDS = "2.7"  # `ignored_params`


def spread(network: Network, optimizer: Any) -> None:
    """Keep the part of this process alone, of a network and its built optimizer.

    Raises:
        BackendError: PyTorch is too old.
    """
    from torch.distributed import fsdp, tensor

    if "ignored_params" not in inspect.signature(fsdp.fully_shard).parameters:
        raise BackendError(
            f"--shard needs PyTorch {NEEDS} or newer; found {torch.__version__}; install a newer "
            "one, or train without --shard"
        )
    world = distributed.get_world_size()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = distributed.init_device_mesh(device, (world,))

    how = {
        "mesh": mesh,
        "shard_placement_fn": lambda kernel: tensor.Shard(kernel.ndim - 1),
        "ignored_params": {p for p in network.parameters() if not divides(p.shape, world)},
        "reshard_after_forward": True,
    }
    network.call_through(lambda module: fsdp.fully_shard(module, **how))
    network.replicate(lambda module: _quiet(fsdp.fully_shard(module, **how)), in_parts=True)
    for variable in optimizer.variables:
        value = variable.value.detach()
        if divides(value.shape, world):
            part = value.chunk(world, -1)[distributed.get_rank()]
            variable._value = tensor.DTensor.from_local(
                part.clone(memory_format=torch.contiguous_format),
                mesh,
                [tensor.Shard(value.ndim - 1)],
                run_check=False,
            )
    _act_on_parts(optimizer.stepper if isinstance(optimizer, OptimizerWrapper) else optimizer)


def _quiet(module: torch.nn.Module) -> Callable[..., Any]:
    """A function that calls a module without FSDP2's advice on outputs that are views, as images
    in channels_last are: nothing here changes a block's output in place."""

    def call(*given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
            return module(*given)

    return call


def _act_on_parts(stepper: Any) -> None:
    """Let an optimizer average the gradients of what is whole, once before each step, and add up
    micro-batches by parts."""
    update = stepper._parallel_update_step

    def averaged(gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        alike = [gradient for gradient in gradients if not in_parts(gradient)]
        if alike:
            flat = torch.cat([gradient.flatten() for gradient in alike])
            distributed.all_reduce(flat)
            means = flat.div_(distributed.get_world_size()).split([g.numel() for g in alike])
            shaped = [mean.view_as(g) for mean, g in zip(means, alike, strict=True)]
            torch._foreach_copy_(alike, shaped)
        update(gradients, variables, rate)

    def reset() -> None:
        torch._foreach_zero_([own(v.value.detach()) for v in stepper._accumulated_gradients])

    def add(gradients: Sequence[Any], sums: Sequence[Any]) -> None:
        torch._foreach_add_([own(v.value.detach()) for v in sums], [own(g) for g in gradients])

    stepper._parallel_update_step = averaged
    stepper._backend_reset_gradient_accumulators = reset
    stepper._backend_increment_gradient_accumulators = add
