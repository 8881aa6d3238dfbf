"""Keras 3 on JAX, PyTorch or TensorFlow: a keras.Model for images (N, H, W, C)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from nfspec.generation.target import Images, Target


def _make(module: ModuleType, name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    network = getattr(module, name)(**options)
    if weights is not None:
        module.load_safetensors(network, weights)
    return network


def _logits(network: Any, images: Images) -> Images:
    return np.asarray(network.predict_on_batch(images))


def _params(network: Any) -> dict[str, Any]:
    import keras

    canonical = sys.modules[type(network).__module__].canonical
    return {canonical(each): keras.ops.convert_to_numpy(each) for each in network.weights}


TARGET = Target(
    name="keras",
    package="keras",
    command="pip install keras, with jax, torch or tensorflow",
    summary="a keras.Model for images (N, H, W, C), on any backend of Keras",
    make=_make,
    logits=_logits,
    params=_params,
)
