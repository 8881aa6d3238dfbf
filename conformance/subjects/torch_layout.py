"""Modules of PyTorch as functions of images in NHWC and of parameters in the canonical layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nfspec.conformance.subjects import NotOffered


def applied(module: Any, values: Mapping[str, Any], x: Any, **arguments: Any) -> Any:
    """The output of a module.

    Args:
        module: The module. Its own parameters are not used.
        values: Name of each of its parameters to the canonical value.
        x: Images, (N, H, W, C).
        arguments: More arguments of the call.
    """
    from torch.func import functional_call

    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    given = {name: theirs(value, shapes[name]) for name, value in values.items()}
    moved = (x.permute(0, 3, 1, 2),)
    return images(functional_call(module, given, moved, arguments, strict=True))


def images(value: Any) -> Any:
    """NCHW to NHWC; what is no batch of images stays as it is."""
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def theirs(value: Any, shape: tuple[int, ...]) -> Any:
    """A canonical parameter (HWIO, IO) in PyTorch's layout (OIHW, OI), given its shape there."""
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t().reshape(shape)


def ours(value: Any) -> Any:
    """The inverse of `theirs`, of a parameter with as many axes in both."""
    return value.permute(2, 3, 1, 0) if value.ndim == 4 else value.t()


def tapped(modules: Mapping[str, Any]) -> dict[str, Any]:
    """A dict that holds the output of each module, by tap, once the network was evaluated.

    Args:
        modules: Tap to the module that computes it. What is in the dict is of the last evaluation.
    """
    taps: dict[str, Any] = {}
    for tap, module in modules.items():
        module.register_forward_hook(
            lambda module, inputs, output, tap=tap: taps.__setitem__(tap, images(output))
        )
    return taps


def require_same(
    who: str, places: Mapping[str, str], plan_shapes: Mapping[str, Any], module: Any
) -> None:
    """Refuse a module that has not the parameters that are asked for.

    Args:
        who: Name of the module, for the message.
        places: Canonical name to the module's name for it.
        plan_shapes: Canonical name to canonical shape.
        module: The module.

    Raises:
        NotOffered: Names or sizes differ.
    """
    has = {name: parameter.numel() for name, parameter in module.named_parameters()}
    asked = {places[name]: math.prod(shape) for name, shape in plan_shapes.items()}
    for name in {**asked, **has}:
        if has.get(name) != asked.get(name):
            raise NotOffered(
                f"{name}: {who} has {has.get(name, 'no')} elements, and "
                f"{asked.get(name, 'none')} are asked for"
            )
