"""MLX: an mlx.nn.Module for images (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from nfspec.generation.target import Images, Target, require_options


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    made = getattr(module, name)
    require_options(made, options)
    network = made(**options)
    if weights is not None:
        module.load_weights(network, weights)
    return network


def _logits(network: Any, images: Images) -> Images:
    import mlx.core as mx

    training = network.training
    logits = np.array(network.eval()(mx.array(images)))
    network.train(training)
    return logits


def _params(network: Any) -> dict[str, Any]:
    from mlx.utils import tree_flatten

    params = {}
    for name, value in tree_flatten(network.parameters()):
        array = np.asarray(value)
        if name.endswith(".weight"):
            name = f"{name.removesuffix('weight')}kernel"
            array = np.moveaxis(array, 0, -1) if array.ndim > 1 else array
        params[name] = array
    return params


TARGET = Target(
    name="mlx",
    package="mlx.core",
    command="pip install mlx, or 'mlx[cpu]' on Linux",
    summary="an mlx.nn.Module for images (N, H, W, C)",
    make=_make,
    logits=_logits,
    params=_params,
    classes="num_classes",
    channels="in_chans",
)
