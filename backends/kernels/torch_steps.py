"""Kernels of PyTorch that act once a step: clipping, SGD and averages of all tensors together.

On a GPU each operation is a launch, so that they are few: they do not grow with the number of
tensors, but with the number of their shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
import torch
from torch.optim.sgd import sgd

from nfspec.backends.kernels import plain
from nfspec.backends.kernels.torch_parts import by_parts, own
from nfspec.backends.kernels.torch_tracing import eager_on_cpu
from nfspec.plan.clipping import LEAST_GRADIENT_NORM, ClipRule

FUSED = ("cpu", "cuda")  # devices on which PyTorch has its fused SGD


def clip_sets(
    gradients: Sequence[Any],
    parameters: Sequence[Any],
    rules: Sequence[ClipRule],
    stacked: bool | None,
) -> tuple[list[Any], list[Any]]:
    """The arithmetic between norms and products once for all tensors, in place where each tensor
    is by itself.

    Args:
        gradients, parameters, rules: As `plain.clip_all` has them.
        stacked: Compute with tensors of one shape together; None: on GPUs.
    """
    outputs, fractions = list(gradients), [torch.zeros(())] * len(rules)
    together: dict[tuple[float, float, torch.device], list[int]] = {}
    weights = [keras.ops.convert_to_tensor(parameter) for parameter in parameters]
    given = Counter(gradient.data_ptr() for gradient in gradients)
    for i, (gradient, weight, rule) in enumerate(zip(gradients, weights, rules, strict=True)):
        if rule.clipping is None:
            continue
        float32 = gradient.dtype is weight.dtype is torch.float32
        if float32 and given[gradient.data_ptr()] == 1 and not _overlaps(gradient):
            together.setdefault((rule.clipping, rule.eps, weight.device), []).append(i)
        else:
            outputs[i], fractions[i] = plain.clip(gradient, weight, rule)
    for (clipping, eps, device), members in together.items():
        few = device.type != "cpu" if stacked is None else stacked
        sets = _alike(weights, rules, members) if few else [[i] for i in members]
        order = [i for each in sets for i in each]
        with torch.no_grad():
            stacks = [
                [_stacked(tensors, each) for each in sets] for tensors in (weights, gradients)
            ]
            norms = [
                torch.cat([_norms(x, rules[s[0]], few) for x, s in zip(of, sets, strict=True)])
                for of in stacks
            ]
            # A NaN stays what it is in clamp_, and is not above any limit.
            limit, norm = norms[0].clamp_(min=eps).mul_(clipping), norms[1]
            clipped = norm > limit
            factor = torch.where(clipped, limit.div_(norm.clamp_(min=LEAST_GRADIENT_NORM)), 1.0)
            sizes, ends = _places(tuple(rules[i].units for i in order), device)
            counts = torch.diff(clipped.cumsum(0)[ends], prepend=ends.new_zeros(1))
            shares = dict(zip(order, (counts / sizes).float().unbind(), strict=True))
            parts = factor.split([len(each) * rules[each[0]].units for each in sets])
            for each, stack, part in zip(sets, stacks[1], parts, strict=True):
                stack.mul_(part.view(len(each), *plain.kept(stack.shape[1:], rules[each[0]].axes)))
                for i, gradient in zip(each, stack.unbind(), strict=True):
                    fractions[i] = shares[i]
                    if len(each) > 1:
                        outputs[i] = gradient
    return outputs, fractions


def clip_all(
    gradients: Sequence[Any], parameters: Sequence[Any], rules: Sequence[ClipRule]
) -> tuple[list[Any], list[Any]]:
    """`clip_sets`, of tensors of one shape together on GPUs, and of what this process has of those
    that are in parts."""
    return by_parts(partial(clip_sets, stacked=None), gradients, parameters, rules)


def _alike(
    weights: Sequence[torch.Tensor], rules: Sequence[ClipRule], members: Sequence[int]
) -> list[list[int]]:
    """Tensors of one shape and one rule together: on a GPU each operation of a tensor is a launch,
    and thirty shapes are fewer than two hundred tensors."""
    sets: dict[Any, list[int]] = {}
    for i in members:
        sets.setdefault((weights[i].shape, rules[i].axes), []).append(i)
    return list(sets.values())


def _stacked(tensors: Sequence[torch.Tensor], places: Sequence[int]) -> torch.Tensor:
    """Tensors along a new first axis: a copy of several, and one itself."""
    if len(places) == 1:
        return tensors[places[0]].unsqueeze(0)
    return torch.stack([tensors[i] for i in places])


@lru_cache(maxsize=16)
def _places(sizes: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of units, and the place of each tensor's last one, on a device."""
    counts = torch.tensor(sizes)
    return counts.to(device), (counts.cumsum(0) - 1).to(device)


def _overlaps(x: torch.Tensor) -> bool:
    """True if elements share memory, so that the tensor cannot be changed in place."""
    return any(n > 1 and step == 0 for n, step in zip(x.shape, x.stride(), strict=True))


def _norms(x: torch.Tensor, rule: ClipRule, few: bool) -> torch.Tensor:
    """Norms of the units of tensors along the first axis, one after another; by few operations,
    or by those that take least time on a CPU."""
    axes = range(x.ndim - 1) if rule.axes is None else rule.axes
    if not axes:
        return x.abs().reshape(-1)
    over = [axis + 1 for axis in axes]
    if few or x.ndim < 3 or rule.axes is None:
        return torch.linalg.vector_norm(x, dim=over).reshape(-1)
    return x.square().sum(over).sqrt_().reshape(-1)  # half the time of vector_norm for columns


def momentum_steps(
    optimizer: Any,
    variables: Sequence[Any],
    buffers: Sequence[Any],
    gradients: Sequence[Any],
    decays: Sequence[float],
    rate: Any,
    momentum: float,
    nesterov: bool,
) -> None:
    """PyTorch's own fused step: one pass over parameter, buffer and gradient."""
    moved: dict[float, list[tuple[Any, Any, Any]]] = {}
    for variable, buffer, gradient, decay in zip(
        variables, buffers, gradients, decays, strict=True
    ):
        # It takes memory in order, and copies what is not.
        value, moving, slope = (own(t.detach()) for t in (variable.value, buffer.value, gradient))
        fused = all(part.is_contiguous() for part in (value, moving, slope))
        if fused and value.device.type in FUSED:
            moved.setdefault(decay, []).append((value, slope, moving))
        else:
            plain.momentum_steps(
                optimizer, [variable], [buffer], [gradient], [decay], rate, momentum, nesterov
            )
    for decay, several in moved.items():
        values, slopes, moving = map(list, zip(*several, strict=True))
        sgd(
            values,
            slopes,
            moving,
            fused=True,
            foreach=False,
            weight_decay=decay,
            momentum=momentum,
            # As a number on a CPU alone: to read it from a GPU waits for all that it has to do.
            lr=rate.detach() if torch.is_tensor(rate) else rate,
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )


def assign_all(optimizer: Any, variables: Sequence[Any], values: Sequence[Any]) -> None:
    """One launch for all of them on a GPU."""
    if variables:
        torch._foreach_copy_([v.value.detach() for v in variables], list(values))


def start_averages(
    optimizer: Any, averages: Sequence[Any], variables: Sequence[Any], first: Any
) -> None:
    """A copy in the first step alone; by arithmetic where the host cannot know which step it is."""
    held, new = ([own(v.value.detach()) for v in several] for several in (averages, variables))
    if eager_on_cpu(first):
        if first:
            torch._foreach_copy_(held, new)
        return
    average_all(optimizer, averages, variables, (~first).to(torch.float32))


def average_all(
    optimizer: Any, averages: Sequence[Any], variables: Sequence[Any], decay: Any
) -> None:
    """The same three roundings as `plain`'s."""
    kinds: dict[torch.dtype, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for average, variable in zip(averages, variables, strict=True):
        pair = (own(average.value.detach()), own(variable.value.detach()))
        kinds.setdefault(pair[0].dtype, []).append(pair)
    for dtype, pairs in kinds.items():
        held, new = map(list, zip(*pairs, strict=True))
        kept = decay.to(dtype)
        torch._foreach_mul_(held, kept)
        torch._foreach_add_(held, torch._foreach_mul(new, 1.0 - kept))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def uniform(shape: Sequence[int], seeds: Any, x: torch.Tensor) -> torch.Tensor:
    """The numbers that Keras draws, of a seed that the host reads: Keras keeps it on the GPU, and
    reads it there, which waits for all that the GPU has to do (keras/src/backend/torch/random.py,
    `torch_seed_generator`, as of 3.15)."""
    if x.device.type == "meta":
        return torch.rand(*shape, device="meta")
    with keras.device("cpu"):
        seed = seeds.next().detach().cpu().numpy().astype(np.int64).sum()
    generator = torch.Generator(x.device).manual_seed(int(seed) & 0xFFFFFFFF)
    return torch.rand(shape, generator=generator, dtype=torch.float32, device=x.device)
