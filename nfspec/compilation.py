"""The door to the frameworks: nothing here imports one until a model is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from nfspec.errors import BackendError, suggest
from nfspec.initialise import Params
from nfspec.spec import Spec

if TYPE_CHECKING:
    import keras

Backend = Literal["jax", "torch", "tensorflow"]
BACKENDS: tuple[Backend, ...] = ("jax", "torch", "tensorflow")


def missing(backend: str) -> str | None:
    """What has to be installed for a backend, as a message with the command; None if nothing."""
    absent = [name for name in ("keras", backend) if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)} not installed; run: pip install {' '.join(absent)}"


def select(backend: str) -> None:
    """Make Keras run on a backend in this process, or say why it cannot.

    Raises:
        BackendError: Unknown, not installed, or Keras already runs on another one.
    """
    if backend not in BACKENDS:
        choices = ", ".join(BACKENDS)
        raise BackendError(
            f'no backend "{backend}"; expected one of {choices}{suggest(backend, BACKENDS)}'
        )
    if (message := missing(backend)) is not None:
        raise BackendError(f"{backend}: {message}")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    import keras

    if (running := keras.backend.backend()) != backend:
        raise BackendError(
            f"Keras already runs on {running} in this process, and cannot change to {backend}. "
            f'Use backend="{running}", or start a new process and call nfspec.compile before '
            f"anything imports keras, or with KERAS_BACKEND={backend} set"
        )


def compile(
    spec: Spec,
    backend: Backend,
    params: Params | None = None,
    *,
    taps: bool = False,
    data_format: Literal["channels_last", "channels_first"] = "channels_last",
    dtype: str | None = None,
) -> keras.Model:
    """Compile a spec to a Keras model on one framework.

    Args:
        spec: What `nfspec.load` returns.
        backend: The framework. Keras runs on one in a process; the first call decides.
        params: Canonical name to float32 array; `nfspec.init(plan)` if not given.
        taps: Return a dict of named taps (stem, each block, pool, logits) instead of the logits.
        data_format: Layout of the images, (N, H, W, C) or (N, C, H, W). Parameters do not change.
        dtype: A Keras dtype policy, such as "mixed_bfloat16"; Keras's own setting if not given.
            Pooling and classifier are in float32 under any policy but a float64 one.

    Returns:
        A functional model of images of any size.

    Raises:
        BackendError: The framework is missing, or Keras already runs on another one.
        WeightError: `params` do not fit the spec.
    """
    select(backend)
    from nfspec.backends import compiler

    return compiler.build(spec, params, taps=taps, data_format=data_format, dtype=dtype)


def params_of(model: Any) -> Params:
    """Read the parameters out of a live model.

    Args:
        model: What `compile` returned, or a Keras model with such layers in it.

    Returns:
        Canonical name to float32 array.

    Raises:
        WeightError: The model has no nfspec layers.
    """
    from nfspec.backends import compiler

    return compiler.params_of(model)
