"""PyTorch: an nn.Module for images (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from nfspec.generation.target import Images, Target, require_options


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    made = getattr(module, name)
    require_options(made, options)
    network = made(**options)
    if weights is not None:
        module.load_weights(network, weights)
    return network


def _logits(network: Any, images: Images) -> Images:
    import torch

    training = network.training
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    network.train(training)
    return logits.numpy()


def _params(network: Any) -> dict[str, Any]:
    params = {}
    for name, value in (network if isinstance(network, Mapping) else network.state_dict()).items():
        if name.endswith(".weight"):
            name = f"{name.removesuffix('weight')}kernel"
            value = value.movedim((0, 1), (-1, -2)) if value.ndim > 1 else value
        params[name] = value
    return params


TARGET = Target(
    name="torch",
    package="torch",
    command="pip install torch",
    summary="an nn.Module for images (N, C, H, W)",
    make=_make,
    logits=_logits,
    params=_params,
    classes="num_classes",
    channels="in_chans",
)
