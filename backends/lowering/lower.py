"""A network's forward pass or training step, compiled ahead of time for other devices."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from nfspec import compilation
from nfspec.arguments import flag, instance, one_of, whole
from nfspec.backends.lowering import program
from nfspec.backends.lowering.program import Collective
from nfspec.backends.lowering.targets import Target, target_of
from nfspec.errors import BackendError, InputError
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve
from nfspec.wording import reason_of

if TYPE_CHECKING:
    import jax

LEAST = {"jax": "0.10", "keras": "3.15"}
STEPS = 1000  # of the run whose step is compiled; the rate of a step is all that depends on it
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class Lowered:
    """Facts of a program; bytes and operations are those of one device.

    For `cuda` they are those of the program that a compiler would be given, before anything is
    fused, and what a compiler alone can say is None.

    Attributes:
        name, work, target, precision: What was compiled, for what.
        devices, batch, size: Number of devices; images on each of them; their side in px.
        flops: Floating-point operations, by the compiler's count; a multiplication and an addition
            are two.
        bytes_accessed: Bytes that operations read and write, by the compiler's count.
        arguments, temporaries, peak, donated: Bytes of memory: what is given to the program, what
            it needs beside, the most at a time, and what it writes in place of its arguments.
        memory: Bytes of memory that a device has; None where it is not published here.
        seconds: The compiler's estimate of the time; None where it gives none that can be: less
            than the operations take at the peak rate.
        compile_seconds: Time that it took to compile.
        code: Bytes of the program.
        collectives: What devices exchange.
        faults: What the program should not have, a sentence for each.
        text: The program, as XLA prints it.
    """

    name: str
    work: str
    target: str
    precision: str
    devices: int
    batch: int
    size: int
    flops: float
    bytes_accessed: float
    arguments: int | None
    temporaries: int | None
    peak: int | None
    donated: int | None
    memory: int | None
    seconds: float | None
    compile_seconds: float | None
    code: int | None
    collectives: tuple[Collective, ...]
    faults: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Places:
    """The places of a program's arrays: images split over devices, the rest whole or split.

    Attributes:
        devices: The target's.
        shard: Split what is not images, too, where its last axis can be divided.
    """

    devices: tuple[Any, ...]
    shard: bool

    @cached_property
    def _layouts(self) -> Any:
        from nfspec.backends.kernels.jax_parts import Parts

        return Parts(self.devices)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which programs are traced: kernels know there that they are in parts."""
        return self._layouts.scope() if self.shard else contextlib.nullcontext()

    def images(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Images, or their labels; the first axis is the batch of all devices."""
        import jax

        return jax.ShapeDtypeStruct(shape, "float32", sharding=self._layouts.images)

    def variable(self, variable: Any) -> jax.ShapeDtypeStruct:
        return self.array(variable.value)

    def array(self, value: Any) -> jax.ShapeDtypeStruct:
        """An array, split over its last axis where that is asked for and devices divide it."""
        import jax

        layout = self._layouts.layout(value.shape if self.shard else ())
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=layout.backend_layout)


@dataclass(frozen=True)
class Changed:
    """The arrays that a step changes, in their `Places`.

    Attributes:
        parameters: Those that have gradients.
        buffers: What the optimizer keeps of them.
        passes: How often a step computes gradients: twice with SAM.
        width: Bytes of a number that devices compute with.
    """

    parameters: Sequence[jax.ShapeDtypeStruct]
    buffers: Any
    passes: int = 1
    width: int = 2

    @property
    def summed(self) -> int:
        """Most bytes that devices add up: all gradients in float32, and what they gather of arrays
        that are whole, which compilers may do by a sum."""
        gradients = 4 * self.passes * sum(math.prod(each.shape) for each in self.parameters)
        return gradients + self._shared

    @property
    def gathered(self) -> int:
        """Most bytes that a device gathers: kernels in parts, forwards and backwards, and arrays
        that are whole."""
        split = [each for each in self.parameters if not each.sharding.is_fully_replicated]
        kernels = sum(math.prod(each.shape) for each in split)
        return 2 * self.passes * self.width * kernels + self._shared

    @property
    def _shared(self) -> int:
        """Bytes of arrays that are whole where others are in parts: their new values are computed
        in parts, such as gains from the gradients of kernels."""
        whole = [each for each in self._arrays if each.sharding.is_fully_replicated]
        if len(whole) == len(self._arrays):
            return 0
        return sum(math.prod(each.shape) * each.dtype.itemsize for each in whole)

    @property
    def _arrays(self) -> list[jax.ShapeDtypeStruct]:
        import jax

        return [each for each in jax.tree.leaves((self.parameters, self.buffers)) if each.shape]

    @property
    def state(self) -> int:
        """Bytes of all on one device, but for numbers alone, such as clip fractions: their old
        values may be no argument of the program."""
        return sum(
            math.prod(each.sharding.shard_shape(each.shape)) * each.dtype.itemsize
            for each in self._arrays
        )


def _require_versions() -> None:
    """Refuse versions without the peak of memory, or without Keras's shardings of a step."""
    for package, least in LEAST.items():
        found = version(package)
        if Version(found) < Version(least):
            raise BackendError(
                f"compiling for a target needs {package} {least} or newer, and {found} is "
                f"installed; run: pip install --upgrade {package}"
            )


def lower(
    spec: Spec | Plan,
    work: str,
    target: str,
    *,
    batch: int = 1,
    size: int | None = None,
    precision: str = "float32",
    shard: bool = False,
) -> Lowered:
    """Compile a network's JAX program for a target, and read its facts.

    No device of the target is needed: TPUs' own compiler, the package libtpu, runs on any Linux
    machine. A step is the recipe's whole: forward and backward pass, clipping, update, average.

    Args:
        spec: The network; for a step its spec needs a `[recipe]`.
        work: `forward`, `folded` (the forward pass of the folded network) or `step`.
        target: `cpu`, `cuda`, or a TPU and its topology, such as `tpu-v5e:2x2`. For `cuda` the
            program is made, and not compiled.
        batch: Images on each device.
        size: Side of the images, px. If None, the training size for a step, else the test size.
        precision: `float32`, or `bfloat16` with float32 parameters.
        shard: Split parameters, and what the optimizer keeps of them, over the devices.

    Raises:
        InputError: An argument is wrong, or the network has no recipe for a step.
        BackendError: JAX, or the target's compiler, is not installed, or JAX or Keras is older
            than `LEAST`; the compiler fails.
    """
    plan = resolve(spec) if isinstance(spec, Spec) else instance("spec", spec, Plan, "nfspec.load")
    made = WORKS[one_of("work", work, tuple(WORKS))]
    aimed = target_of(target)
    policy = POLICIES[one_of("precision", precision, tuple(POLICIES))]
    batch = whole("batch", batch, 1, "images")
    default = plan.train_size if work == "step" else plan.test_size
    side = default if size is None else whole("size", size, 1, "px")
    if work == "step" and plan.recipe is None:
        raise InputError(f"{plan.name} has no [recipe], and a step follows one")
    compilation.select("jax")
    _require_versions()
    devices = tuple(aimed.devices())
    places = Places(devices, flag("shard", shard))
    again = plan.recipe.remat if plan.recipe and work == "step" else "none"
    model = compilation.compile(plan, "jax", dtype=policy, folded=work == "folded", remat=again)
    traced, changed = made(model, plan, places, (batch * len(devices), side))
    del model  # its weights are not needed to compile, and the compiler needs memory
    return compile_for(
        aimed,
        traced,
        changed,
        name=plan.name,
        work=work,
        precision=precision,
        devices=len(devices),
        batch=batch,
        size=side,
    )


def _images(plan: Plan, count: int, side: int) -> tuple[int, ...]:
    return (count, side, side, plan.channels)


def _forward(model: Any, plan: Plan, places: Places, shape: tuple[int, int]) -> Any:
    import jax

    def function(weights: Any, rest: Any, x: Any) -> Any:
        return model.stateless_call(weights, rest, x, training=False)[0]

    weights = [places.variable(v) for v in model.trainable_variables]
    rest = [places.variable(v) for v in model.non_trainable_variables]
    with places.scope():
        return jax.jit(function).trace(weights, rest, places.images(_images(plan, *shape))), None


def _step(model: Any, plan: Plan, places: Places, shape: tuple[int, int]) -> Any:
    """Keras's own step of training, whose state is given back in the memory that it had."""
    import jax
    import keras
    import numpy as np

    from nfspec.backends.sam import SharpnessAware
    from nfspec.training.runs import recipe

    count = shape[0]
    classes = plan.tap_info["logits"].channels
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    trainer = recipe(plan, steps=STEPS, batch=count).compile(model, metrics=metrics)
    if isinstance(trainer, SharpnessAware):
        trainer.parts = len(places.devices)
    few = np.zeros(_images(plan, 1, shape[1]), "float32"), np.zeros((1, classes), "float32")
    trainer._symbolic_build(data_batch=few)
    trainer.optimizer.build(trainer.trainable_variables)
    state = tuple(
        [places.variable(v) for v in variables]
        for variables in (
            trainer.trainable_variables,
            trainer.non_trainable_variables,
            trainer.optimizer.variables,
            trainer.metrics_variables,
        )
    )

    def function(state: Any, x: Any, y: Any) -> Any:
        return trainer.train_step(state, (x, y))

    labels = places.images((count, classes))
    images = places.images(_images(plan, *shape))
    # As Keras has them: XLA would give gains back in parts, which they were not in.
    kept = jax.tree.map(lambda each: each.sharding, state)
    with places.scope():
        step = jax.jit(function, donate_argnums=0, out_shardings=(None, kept))
        traced = step.trace(state, images, labels)
    passes = 2 if plan.recipe and plan.recipe.sam_rho else 1
    width = np.dtype(model.compute_dtype).itemsize
    return traced, Changed(state[0], state[2], passes, width)


WORKS: dict[str, Callable[..., Any]] = {"forward": _forward, "folded": _forward, "step": _step}


def compile_for(target: Target, traced: Any, changed: Changed | None, **what: Any) -> Lowered:
    """Compile a function for a target, and read its facts.

    Args:
        target: The target.
        traced: What `jax.jit(function).trace` returned for arrays in their `Places`.
        changed: What a step of training changes; None for a forward pass.
        what: The fields of `Lowered` up to `size`, but for the target.

    Raises:
        BackendError: The compiler fails.
    """
    start = time.monotonic()
    lowered, compiled = compile_traced(traced, target)
    seconds = time.monotonic() - start
    asked, precision = lowered.as_text(), what["precision"]
    found = [*program.narrow(asked), *(program.wide(asked) if precision != "float32" else [])]
    what = {**what, "target": target.name}
    if compiled is None:
        return _before(lowered, asked, faults=tuple(found), **what)
    found += _faults(compiled, changed, what["devices"])
    return _facts(compiled, target, faults=tuple(found), compile_seconds=seconds, **what)


def compile_traced(traced: Any, target: Target) -> tuple[Any, Any]:
    """What JAX calls lowered, and compiled; the latter is None where a target has no compiler here.

    Raises:
        BackendError: The compiler refuses the program.
    """
    try:
        lowered = traced.lower(lowering_platforms=(target.platform,))
        return lowered, lowered.compile() if target.compiles else None
    except Exception as error:  # jaxlib raises its own class, of the same base as all others
        reason = reason_of(error)
        raise BackendError(f"{target.name}: the compiler refuses the program: {reason}") from None


def _before(lowered: Any, asked: str, **what: Any) -> Lowered:
    """Facts of a program that is not compiled."""
    cost = lowered.cost_analysis()
    return Lowered(
        **what,
        arguments=None,
        temporaries=None,
        peak=None,
        donated=None,
        memory=None,
        seconds=None,
        compile_seconds=None,
        code=None,
        flops=cost.get("flops", 0.0),
        bytes_accessed=cost.get("bytes accessed", 0.0),
        collectives=(),
        text=asked,
    )


def _faults(compiled: Any, changed: Changed | None, devices: int) -> list[str]:
    """Sentences about what a compiled program should not have."""
    text = compiled.as_text()
    found = program.forbidden(text)
    if changed is not None:
        donated = compiled.memory_analysis().alias_size_in_bytes
        found += program.copied(donated, changed.state)
        if devices > 1:
            found += program.exchanged(text, changed.summed, changed.gathered, devices)
    return found


def _facts(compiled: Any, aimed: Target, **what: Any) -> Lowered:
    cost, memory, text = compiled.cost_analysis(), compiled.memory_analysis(), compiled.as_text()
    accelerator = aimed.accelerator
    flops, seconds = cost.get("flops", 0.0), cost.get("optimal_seconds", 0.0)
    least = flops / accelerator.narrow_flops if accelerator else 0.0
    return Lowered(
        **what,
        flops=flops,
        bytes_accessed=cost.get("bytes accessed", 0.0),
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        donated=memory.alias_size_in_bytes,
        memory=accelerator.memory if accelerator and aimed.topology else None,
        seconds=seconds if seconds > least and aimed.topology else None,
        code=memory.generated_code_size_in_bytes,
        collectives=tuple(program.collectives(text)),
        text=text,
    )
