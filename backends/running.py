"""A model's forward pass as its framework's users run it, and what the framework is."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]


def forward_function(model: keras.Model) -> Callable[[NDArray[np.float32]], Outputs]:
    """Evaluate a model that has a dict of outputs, as is usual in its framework.

    Jitted on JAX, a graph on TensorFlow, eager on PyTorch. The function returned takes images in
    the model's layout and gives NumPy arrays.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]
        jitted = jax.jit(lambda t, r, x: model.stateless_call(t, r, x, training=False)[0])
        call: Callable[[Any], Any] = lambda x: jitted(trainable, rest, x)  # noqa: E731
    elif backend == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: model(x, training=False))
    else:
        import torch

        call = torch.inference_mode()(lambda x: model(x, training=False))

    def forward(x: NDArray[np.float32]) -> Outputs:
        outputs = call(keras.ops.convert_to_tensor(x))
        return {tap: keras.ops.convert_to_numpy(value) for tap, value in outputs.items()}

    return forward


def full_float32() -> None:
    """Keep accelerators from rounding the inputs of float32 convs and products to less.

    NVIDIA's TF32 keeps 10 bits and is on by default for convs in PyTorch and for all in
    TensorFlow; JAX's default on TPU is bfloat16.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def facts() -> dict[str, str]:
    """Versions and device of this process."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0].device_kind
    elif backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        device = (
            tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"
        )
    else:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "backend": backend,
        "version": version(backend),
        "keras": version("keras"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "device": device,
    }
