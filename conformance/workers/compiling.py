"""Programs of JAX, compiled for a TPU by the TPU's own compiler before each runs on the CPU."""

from __future__ import annotations

from typing import Any

import jax

from nfspec.backends.lowering import program
from nfspec.backends.lowering.lower import compile_traced
from nfspec.backends.lowering.targets import target_of
from nfspec.errors import BackendError

STATIC = {"static_argnums", "static_argnames"}


class Compiling:
    """Compiles what is jitted in this process from now on, for each new shape of its arguments.

    Args:
        name: A target of `nfspec lower`, such as `tpu-v5e:2x2`; programs are for one of its
            devices.

    Attributes:
        calls: Number of calls of programs that were compiled.

    Raises:
        BackendError: The compiler of TPUs is not installed; from a call of a jitted function: it
            refuses the program, or the program has what no program of a network may have.
    """

    def __init__(self, name: str):
        self.target = target_of(name)
        self.calls = 0
        self._place = jax.sharding.SingleDeviceSharding(self.target.devices()[0])
        self._jit = jax.jit
        jax.jit = self.jit

    def jit(self, function: Any = None, **options: Any) -> Any:
        """In the place of `jax.jit`."""
        if function is None:
            return lambda function: self.jit(function, **options)
        jitted = self._jit(function, **options)
        if STATIC & {*options}:  # Keras draws initial values so
            return jitted
        known: set[Any] = set()

        def compiled(*args: Any, **kwargs: Any) -> Any:
            leaves, structure = jax.tree.flatten((args, kwargs))
            if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                key = (structure, *((jax.numpy.shape(x), jax.numpy.result_type(x)) for x in leaves))
                if key not in known:
                    there = jax.tree.map(self._moved, (args, kwargs))
                    self._compile(jitted.trace(*there[0], **there[1]))
                    known.add(key)
                self.calls += 1
            return jitted(*args, **kwargs)

        return compiled

    def _moved(self, leaf: Any) -> Any:
        """An argument as it is on the target; a number stays one."""
        if isinstance(leaf, bool | int | float):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._place)

    def _compile(self, traced: Any) -> None:
        _, compiled = compile_traced(traced, self.target)
        if found := program.forbidden(compiled.as_text()):
            raise BackendError(f"{self.target.name}: {'; '.join(found)}")
