"""What the layers share: canonical parameter names, given values, data formats."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nfspec.counting import output_side
from nfspec.plan import Padding, Role

Shape = tuple[Any, ...]  # of int, and None for a side that is not known


def serialisable(cls: type[keras.layers.Layer]) -> Any:
    """Register a layer with Keras as `nfspec>ClassName`."""
    return keras.saving.register_keras_serializable(package="nfspec")(cls)


class NFLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer that knows the canonical names of its parameters.

    Args:
        canonical: Prefix of the canonical names, such as `stages.0.blocks.1.conv0`. Keras names
            cannot have dots, on PyTorch, so it is kept beside the layer's name.
    """

    def __init__(self, *, canonical: str = "", **kwargs: Any):
        super().__init__(**kwargs)
        self.canonical = canonical
        self.given: dict[str, NDArray[np.float32]] = {}  # values to build with, by local name
        self._named: dict[str, keras.Variable] = {}

    def add_parameter(
        self,
        local: str,
        role: Role,
        shape: tuple[int, ...],
        initializer: Any,
        *,
        autocast: bool = True,
    ) -> keras.Variable:
        """Add a trainable variable known as `<canonical>.<local>`, with its role in training."""
        value = self.given.pop(local, None)
        if value is not None:
            initializer = lambda shape, dtype=None: ops.convert_to_tensor(value, dtype)  # noqa: E731
        name = local.replace(".", "_")
        variable = self.add_weight(
            shape=shape, initializer=initializer, name=name, autocast=autocast
        )
        variable.canonical = f"{self.canonical or self.name}.{local}"
        variable.role = role
        self._named[local] = variable
        return variable

    @property
    def canonical_variables(self) -> dict[str, keras.Variable]:
        """Canonical name to variable, once built."""
        return {variable.canonical: variable for variable in self._named.values()}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "canonical": self.canonical}


def spatial_axes(data_format: str) -> tuple[int, int]:
    """Axes of height and width in a batch of images."""
    return (1, 2) if data_format == "channels_last" else (2, 3)


def channel_axis(data_format: str) -> int:
    return 3 if data_format == "channels_last" else 1


def over_image(vector: Any, data_format: str) -> Any:
    """Give a (N, C) tensor two axes of size 1 where the image has its height and width."""
    return ops.expand_dims(vector, spatial_axes(data_format))


def spatial_padding(
    x: Any, kernel: int, stride: int, padding: str, data_format: str, fill: float
) -> tuple[Any, str]:
    """Pad for `symmetric`, and return what is left for the operation to do: `same` or `valid`."""
    if padding != "symmetric":
        return x, padding
    pad = (stride + kernel - 2) // 2
    if pad:
        height, width = spatial_axes(data_format)
        widths = [(pad, pad) if axis in (height, width) else (0, 0) for axis in range(4)]
        x = ops.pad(x, widths, constant_values=fill)
    return x, "valid"


def output_image(
    input_shape: Shape, channels: int | None, kernel: int, stride: int, padding: Padding, fmt: str
) -> Shape:
    """Output shape of a conv or pool; `channels` None keeps the input's."""
    shape = list(input_shape)
    for axis in spatial_axes(fmt):
        if shape[axis] is not None:
            shape[axis] = output_side(shape[axis], kernel, stride, padding)
    if channels is not None:
        shape[channel_axis(fmt)] = channels
    return tuple(shape)
