"""Kernels in parts over the devices of JAX, each whole where a device computes with it.

A device keeps a part of each kernel, of its momentum and of its average, by output channel: over
these weight standardisation and clipping take their statistics, which are then the device's own.
Devices gather the standardised kernel in the dtype of the images, and add up its gradient in
float32, of which each keeps its part. Left to XLA's partitioner, some products would be split
instead, and their results added up in bfloat16.

Source: Rajbhandari et al. 2020 (arXiv:1910.02054 §5), Xu et al. 2020 (arXiv:2004.13336).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.sharding import PartitionSpec

from nfspec.errors import BackendError
from nfspec.plan.counting import divides

AXIS = "data"
NEEDS = "0.7"


class Parts(keras.distribution.ModelParallel):  # type: ignore[misc]  # Keras has no types
    """Images by their first axis, and kernels by their last, in parts on each device.

    A kernel whose output channels cannot be divided by the number of devices is whole on each, as
    are gains, biases and skip gains.

    Args:
        devices: Devices of JAX, or their names as Keras has them.

    Raises:
        BackendError: JAX is older than `NEEDS`.
    """

    def __init__(self, devices: Sequence[Any]):
        if not hasattr(jax, "shard_map"):
            raise BackendError(
                f"--shard needs JAX {NEEDS} or newer; found {jax.__version__}; install a newer "
                "one, or train without --shard"
            )
        mesh = keras.distribution.DeviceMesh((len(devices),), (AXIS,), devices)
        super().__init__(layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name=AXIS)

    def get_variable_layout(self, variable: Any) -> Any:
        return self.layout(variable.shape)

    def layout(self, shape: Sequence[int]) -> Any:
        """Keras's layout of a parameter of this shape, and of what is kept for it."""
        axes: list[str | None] = [None] * len(shape)
        if divides(shape, self.device_mesh.devices.size):
            axes[-1] = AXIS
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    @property
    def images(self) -> Any:
        """JAX's sharding of images, or of their labels: the first axis is in parts."""
        return jax.sharding.NamedSharding(self.device_mesh.backend_mesh, PartitionSpec(AXIS))

    def in_parts(self, arrays: Any) -> Any:
        """A tree of parameters, or of what is kept of them, put on the devices in parts."""
        return jax.tree.map(
            lambda each: jax.device_put(each, self.layout(jnp.shape(each)).backend_layout), arrays
        )

    def whole(self, kernel: Any) -> Any:
        """A kernel in parts, gathered on each device."""
        mesh = self.device_mesh.backend_mesh
        place = jax.sharding.NamedSharding(mesh, PartitionSpec())
        return jax.lax.with_sharding_constraint(kernel, place)

    def summed(self, gradient: Callable[..., Any], shape: Sequence[int], *images: Any) -> Any:
        """A kernel's gradient, added up over the devices, of which each keeps its part.

        Args:
            gradient: Function of images, and of the gradient by their results, to the gradient of
                the kernel.
            shape: The kernel's.
            images: Those of all devices, (N, ...). Where devices do not divide N, each computes the
                gradient of all of them.
        """
        uneven = images[0].shape[0] % self.device_mesh.devices.size
        none = PartitionSpec()
        part = none if uneven else self.layout(shape).backend_layout.spec

        def scattered(*images: Any) -> Any:
            own = gradient(*images)
            if uneven:
                return own
            if AXIS not in part:
                return jax.lax.psum(own, AXIS)
            return jax.lax.psum_scatter(own, AXIS, scatter_dimension=own.ndim - 1, tiled=True)

        return jax.shard_map(
            scattered,
            mesh=self.device_mesh.backend_mesh,
            in_specs=none if uneven else PartitionSpec(AXIS),
            out_specs=part,
            check_vma=False,  # else the gradient by what all devices share is added up already
        )(*images)


def parts() -> Parts | None:
    """The parts that kernels are in; None where they are whole."""
    chosen = keras.distribution.distribution()
    return chosen if isinstance(chosen, Parts) else None
