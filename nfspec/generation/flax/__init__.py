"""Flax: an nnx.Module for images (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from nfspec.generation.target import Images, Target, require_options


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    from flax import nnx

    made = getattr(module, name)
    require_options(made, options)
    network = made(**{"rngs": nnx.Rngs(0), **options})
    if weights is not None:
        module.load_weights(network, weights)
    return network


def _logits(network: Any, images: Images) -> Images:
    import jax
    from flax import nnx

    definition, state = nnx.split(nnx.view(network, raise_if_not_found=False, deterministic=True))
    return np.asarray(jax.jit(lambda state, x: nnx.merge(definition, state)(x))(state, images))


def _params(network: Any) -> dict[str, Any]:
    from flax import nnx

    state = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {".".join(map(str, path)): parameter[...] for path, parameter in state}


TARGET = Target(
    name="flax",
    package="flax",
    command="pip install flax",
    summary="an nnx.Module for images (N, H, W, C)",
    make=_make,
    logits=_logits,
    params=_params,
    classes="num_classes",
    channels="in_chans",
)
