"""JAX: pure functions over a dict of arrays by name, for images (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from nfspec.errors import InputError
from nfspec.generation.target import Images, Target, require_options


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    import jax

    if not hasattr(module, "init"):
        if weights is None or options:
            raise InputError(
                "jax: a folded network draws no weights, and has no options; give params"
            )
        return module, module.load_weights(weights)
    require_options(module.init, options)
    if weights is not None:
        ends = {name: value for name, value in options.items() if name != "key"}
        return module, module.load_weights(weights, **ends)
    return module, module.init(**{"key": jax.random.key(0), **options})


def _logits(network: Any, images: Images) -> Images:
    import jax

    module, params = network
    return np.asarray(jax.jit(module.apply)(params, images))


TARGET = Target(
    name="jax",
    package="jax",
    command="pip install jax",
    summary="functions of a dict of arrays, for images (N, H, W, C)",
    make=_make,
    logits=_logits,
    classes="num_classes",
    channels="in_chans",
)
