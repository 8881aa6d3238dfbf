"""NumPy: a function of images (N, H, W, C), for reading and teaching."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

from nfspec.errors import InputError
from nfspec.generation.target import Images, Target


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    if weights is None:
        raise InputError(
            "numpy: a network in NumPy draws no weights; give params=nfspec.init(plan), or those "
            "of a file"
        )
    if unknown := options.keys() - {"classes", "channels"}:  # which the weights have already
        raise InputError(f"numpy: a network in NumPy has no option {', '.join(sorted(unknown))}")
    return partial(module.forward, module.load_weights(weights))


def _logits(network: Any, images: Images) -> Images:
    return network(images)


TARGET = Target(
    name="numpy",
    package="numpy",
    command="pip install numpy",
    summary="a function of images (N, H, W, C), forward alone",
    make=_make,
    logits=_logits,
)
