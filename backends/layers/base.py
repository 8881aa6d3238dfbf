"""The base class of all layers: canonical parameter names, given values, data formats."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nfspec.backends.kernels import Kernels, kernels
from nfspec.plan import Init, Padding, Role
from nfspec.plan.counting import output_side
from nfspec.plan.initialise import sample

Shape = tuple[Any, ...]  # of int, and None for a side that is not known
ZEROS = Init("constant", 0.0)


def serialisable(cls: type[keras.layers.Layer]) -> Any:
    """Register a layer with Keras as `nfspec>ClassName`."""
    return keras.saving.register_keras_serializable(package="nfspec")(cls)


class NFLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer that knows the canonical names of its parameters.

    Args:
        canonical: Prefix of the canonical names, such as `stages.0.blocks.1.conv0`. Keras names
            cannot have dots, on PyTorch, so it is kept beside the layer's name.
        spec: The network's spec as JSON, in its first layer alone, so that copies and files of the
            network keep it; empty elsewhere.
        plain: Use the plain kernels, not those of the framework.
    """

    def __init__(self, *, canonical: str = "", spec: str = "", plain: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.canonical = canonical
        self.spec = spec
        self.plain = plain
        self.given: dict[str, NDArray[np.float32]] = {}  # values to build with, by local name
        self.named: dict[str, keras.Variable] = {}  # by local name
        self._cast: set[str] = set()  # local names of the parameters that Keras casts
        # On PyTorch, the modules of a network that hold the parameters, by local name. Set past
        # Keras, which would track them.
        object.__setattr__(self, "places", {})

    @property
    def kernels(self) -> Kernels:
        """The kernels to compute with: see `nfspec.backends.kernels`."""
        return kernels(self.plain)

    def add_parameter(
        self,
        local: str,
        role: Role,
        shape: tuple[int, ...],
        init: Init,
        *,
        autocast: bool = True,
    ) -> keras.Variable:
        """Add a trainable variable known as `<canonical>.<local>`, with its role in training.

        Without a given value it is drawn, by NumPy, as JAX would compile a program for each shape.
        Like Keras's own initial values, these follow from `keras.utils.set_random_seed`.
        """
        value = self.given.pop(local, None)
        if value is None:
            value = sample(init, shape, np.random.default_rng(random.getrandbits(64)))

        def initial(shape: Shape, dtype: Any = None) -> Any:
            return ops.convert_to_tensor(value, dtype)

        name = local.replace(".", "_")
        variable = self.add_weight(shape=shape, initializer=initial, name=name, autocast=autocast)
        variable.canonical = f"{self.canonical or self.name}.{local}"
        variable.role = role
        self.named[local] = variable
        if autocast:
            self._cast.add(local)
        return variable

    def read(self, local: str) -> Any:
        """A parameter as `call` computes with it: in the compute dtype, if Keras casts it.

        On PyTorch, within a network, it is what the network's module holds under the canonical name
        at that moment, so that `torch.func.functional_call` and whatever else puts tensors in the
        place of parameters has its way.
        """
        place = self.places.get(local)
        value = None if place is None else place.held(local)
        if value is None:
            value = ops.convert_to_tensor(self.named[local])
        return ops.cast(value, self.compute_dtype) if local in self._cast else value

    @property
    def canonical_variables(self) -> dict[str, keras.Variable]:
        """Canonical name to variable, once built."""
        return {variable.canonical: variable for variable in self.named.values()}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        spec = {"spec": self.spec} if self.spec else {}
        return {
            **super().get_config(),
            "canonical": self.canonical,
            "plain": self.plain,
            **spec,
        }


def is_plain(model: keras.Model) -> bool:
    """True if a model has layers of nfspec's that use the plain kernels."""
    layers = model._flatten_layers()
    return any(layer.plain for layer in layers if isinstance(layer, NFLayer))


def spatial_axes(data_format: str) -> tuple[int, int]:
    """Axes of height and width in a batch of images."""
    return (1, 2) if data_format == "channels_last" else (2, 3)


def channel_axis(data_format: str) -> int:
    return 3 if data_format == "channels_last" else 1


def over_image(vector: Any, data_format: str) -> Any:
    """Give a (N, C) tensor two axes of size 1 where the image has its height and width."""
    return ops.expand_dims(vector, spatial_axes(data_format))


def gated_shape(input_shape: Shape, gate_only: bool, data_format: str) -> Shape:
    """Output shape of attention: the images', or the gate's."""
    if not gate_only:
        return input_shape
    return (input_shape[0], input_shape[channel_axis(data_format)])


def output_image(
    input_shape: Shape, channels: int | None, kernel: int, stride: int, padding: Padding, fmt: str
) -> Shape:
    """Output shape of a conv or pool; `channels` None keeps the input's, `kernel` is a window's."""
    shape = list(input_shape)
    for axis in spatial_axes(fmt):
        if shape[axis] is not None:
            shape[axis] = output_side(shape[axis], kernel, stride, padding)
    if channels is not None:
        shape[channel_axis(fmt)] = channels
    return tuple(shape)
