"""TensorFlow, as graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nfspec.errors import BackendError


def _gpus() -> list[Any]:
    return list(tf.config.list_physical_devices("GPU"))


def set_mode(mode: str) -> None:
    """By default convs and products on GPUs round operands to TF32."""
    if mode == "tf32" and not _gpus():
        raise BackendError("tensorflow: cpu has no TF32")
    tf.config.experimental.enable_tensor_float_32_execution(mode == "tf32")


def switches() -> dict[str, str]:
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    return {"tensor_float_32_execution": str(enabled), "platform": "gpu" if _gpus() else "cpu"}


def device() -> str:
    gpus = _gpus()
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def _tensors(arrays: Any) -> Any:
    return tf.nest.map_structure(tf.convert_to_tensor, arrays)


def array(tensor: Any) -> Any:
    """A tensor as a NumPy array, narrow floats as float32."""
    return (tf.cast(tensor, tf.float32) if tensor.dtype.size < 4 else tensor).numpy()


def _arrays(tensors: Any) -> Any:
    return tf.nest.map_structure(array, tensors)


# AutoGraph would spend seconds on rewriting what is called here; nothing branches on tensors.
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    graph = tf.function(function, autograph=False)
    return lambda *arrays: _arrays(graph(*_tensors(list(arrays))))


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    def vjp(dy: Any, *tensors: Any) -> Any:
        with tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            y = function(*tensors)
        none = tf.UnconnectedGradients.ZERO
        return tape.gradient(y, tensors, tf.cast(dy, y.dtype), unconnected_gradients=none)

    graph = tf.function(vjp, autograph=False)
    return lambda *arrays: tuple(_arrays(graph(*_tensors(list(arrays)))))
