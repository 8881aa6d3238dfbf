"""optax's adaptive gradient clipping, which goes by the shape of a parameter, not by its role."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.subjects import NotOffered
from nfspec.errors import BackendError


class Optax:
    framework = "jax"
    package = "optax"

    def __init__(self, mode: str):
        if importlib.util.find_spec("optax") is None:
            raise BackendError("optax is not installed; run: pip install optax")
        if mode not in ("f32", "tf32"):
            raise NotOffered(f"optax computes norms in the gradients' type: no mode {mode}")

    def agc(self, clip: Clip) -> Callable[..., Any]:
        import optax

        transform = optax.adaptive_grad_clip(clip.clipping, clip.eps)

        def function(gradient: Any, parameter: Any) -> Any:
            return transform.update(gradient, transform.init(parameter), parameter)[0]

        return function
