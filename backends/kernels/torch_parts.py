"""Tensors in parts over processes, DTensors of one axis, where PyTorch's kernels act once a step.

They are known by their methods: to import them takes a second, and a process of its own has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import torch

from nfspec.backends.kernels import plain
from nfspec.plan.clipping import ClipRule

Clip = Callable[[Sequence[Any], Sequence[Any], Sequence[ClipRule]], tuple[list[Any], list[Any]]]


def in_parts(x: Any) -> bool:
    """True if a tensor is a DTensor."""
    return hasattr(x, "full_tensor")


def own(x: Any) -> Any:
    """The part of a tensor that this process has; the tensor itself where it is whole."""
    return x.to_local() if in_parts(x) else x


def whole(x: Any) -> Any:
    """A tensor from its parts; all processes have to call it."""
    return x.full_tensor() if in_parts(x) else x


def _processes(gradient: Any, weight: Any, rule: ClipRule) -> int:
    """The number of processes that have units of a tensor, as many each; 0 where units have their
    elements in several."""
    if not in_parts(gradient):
        return 1
    if gradient.placements != weight.placements or len(gradient.placements) != 1:
        return 0
    placement, count = gradient.placements[0], gradient.device_mesh.size()
    if placement.is_replicate():
        return 1
    if not placement.is_shard() or rule.axes is None or placement.dim in rule.axes:
        return 0
    return 0 if gradient.shape[placement.dim] % count else count


def by_parts(
    clip: Clip, gradients: Sequence[Any], parameters: Sequence[Any], rules: Sequence[ClipRule]
) -> tuple[list[Any], list[Any]]:
    """`clip` of the units that this process has.

    Args:
        clip: A function like `plain.clip_all`, of whole tensors.
        gradients, parameters, rules: Its arguments. DTensors are clipped in place; those with units
            in several processes by operations that add up over the processes.
    """
    if not any(map(in_parts, gradients)):
        return clip(gradients, parameters, rules)
    weights = [keras.ops.convert_to_tensor(parameter) for parameter in parameters]
    counts = [_processes(*each) for each in zip(gradients, weights, rules, strict=True)]
    here = [i for i, count in enumerate(counts) if count]
    parts = [own(gradients[i]).detach() for i in here]
    local = [replace(rules[i], units=rules[i].units // counts[i]) for i in here]
    clipped, shares = clip(parts, [own(weights[i]).detach() for i in here], local)
    outputs, fractions = list(gradients), [torch.zeros(())] * len(rules)
    for i, before, after, share in zip(here, parts, clipped, shares, strict=True):
        fractions[i] = share
        if not in_parts(gradients[i]):
            outputs[i] = after
        elif after is not before:
            before.copy_(after)
    for i, count in enumerate(counts):
        if not count:
            gradient, fraction = plain.clip(gradients[i], weights[i], rules[i])
            gradients[i].copy_(gradient.redistribute(placements=gradients[i].placements))
            fractions[i] = whole(fraction)
    several = [i for i, count in enumerate(counts) if count > 1]
    if several:  # each process has as many units
        group = gradients[several[0]].device_mesh.get_group()
        means = torch.stack([fractions[i] for i in several])
        torch.distributed.all_reduce(means, group=group)
        for i, mean in zip(several, means.unbind(), strict=True):
            fractions[i] = mean / counts[i]
    return outputs, fractions
