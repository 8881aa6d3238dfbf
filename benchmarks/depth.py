"""The time before the first step on JAX by the depth of a network, and what loops over blocks save.

    python -m nfspec.benchmarks.depth --target cpu
    python -m nfspec.benchmarks.depth --target tpu-v3:2x2
    python -m nfspec.benchmarks.depth --real

The networks are NFNet-F0, F1, F3 with a sixteenth of the width, on images of 64 px: the time to
compile depends on the number of operations, and hardly on their size. With `--real` it is NFNet-F0
on images of 96 px. Times are seconds of a processor. On the CPU there are the whole training step,
and the gradients alone, with blocks one after another and as loops (`nfspec.benchmarks.scanned`);
both ways compute them in turns. `nfspec.benchmarks.reused` measures TensorFlow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import typer

from nfspec import compilation
from nfspec.backends.lowering.lower import Places
from nfspec.backends.lowering.targets import target_of
from nfspec.console import print_lines, say, table
from nfspec.language.loader import load
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve
from nfspec.training.runs import recipe

IMAGES, CLASSES, TURNS = 4, 10, 15


def narrow(times: int) -> Spec:
    """NFNet-F0 with so many times its blocks, and little width."""
    return load(
        "nfnet-f0",
        {
            "stages.depth": [times * depth for depth in (1, 2, 6, 3)],
            "stages.width": [32, 64, 128, 128],
            "stages.group_width": 16,
            "stem.width": [8, 8, 16, 16],
            "input.train": 64,
            "head.classes": CLASSES,
            "recipe.precision": "float32",
        },
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the seconds of a processor that it took."""
    start = time.process_time()
    return work(), time.process_time() - start


def in_turns(works: Sequence[Callable[[], Any]]) -> list[float]:
    """The median seconds of a processor of each work; they take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(TURNS):
        for i in range(len(works))[:: 1 if turn % 2 else -1]:
            taken[i].append(timed(works[i])[1])
    return [statistics.median(each) for each in taken]


def real() -> Spec:
    """NFNet-F0 for small images and few classes."""
    return load(
        "nfnet-f0", {"input.train": 96, "head.classes": CLASSES, "recipe.precision": "float32"}
    )


def _batch(spec: Spec) -> tuple[Any, Any]:
    images = np.zeros((IMAGES, spec.input.train, spec.input.train, 3), "float32")
    return images, np.eye(CLASSES, dtype="float32")[:IMAGES]


def first_step(spec: Spec) -> list[float]:
    """Seconds to make a model, to trace its training step, to compile it and run it once."""
    import jax

    model, built = timed(lambda: compilation.compile(spec, "jax"))
    trainer = recipe(resolve(spec), steps=100, batch=IMAGES).compile(model)
    batch = _batch(spec)
    _, prepared = timed(lambda: trainer.optimizer.build(trainer.trainable_variables))
    trainer._symbolic_build(data_batch=batch)
    groups = (
        trainer.trainable_variables,
        trainer.non_trainable_variables,
        trainer.optimizer.variables,
        trainer.metrics_variables,
    )
    state = tuple([v.value for v in group] for group in groups)
    jitted = jax.jit(lambda state, *batch: trainer.train_step(state, batch), donate_argnums=0)
    program, traced = timed(lambda: jitted.trace(state, *batch).lower())
    _, compiled = timed(lambda: jax.block_until_ready(program.compile()(state, *batch)))
    return [built + prepared, traced, compiled]


def gradients(model: Any, looped: bool) -> Callable[..., Any]:
    """A function of parameters, other variables, images and labels to a loss and its gradients."""
    import jax
    import keras

    from nfspec.benchmarks import scanned

    def loss(trained: Any, rest: Any, x: Any, y: Any) -> Any:
        variables = (*model.trainable_variables, *model.non_trainable_variables)
        with keras.StatelessScope(list(zip(variables, (*trained, *rest), strict=True))):
            logits = scanned.forward(model, x) if looped else model(x, training=True)
        return -(jax.nn.log_softmax(logits.astype("float32")) * y).sum(-1).mean()

    return jax.value_and_grad(loss)


def compiled_gradients(spec: Spec, target: str, looped: bool) -> tuple[Any, list[float]]:
    """A program, seconds to trace and to compile it, MB of temporaries, and MB at the peak."""
    import jax

    aimed = target_of(target)
    places = Places(tuple(aimed.devices())[:1], False)
    model = compilation.compile(spec, "jax")
    trained = [places.variable(v) for v in model.trainable_variables]
    rest = [places.variable(v) for v in model.non_trainable_variables]
    arrays = [places.images(each.shape) for each in _batch(spec)]
    platforms = (aimed.platform,)
    traced = jax.jit(gradients(model, looped))
    program, tracing = timed(
        lambda: traced.trace(trained, rest, *arrays).lower(lowering_platforms=platforms)
    )
    compiled, compiling = timed(program.compile)
    memory = compiled.memory_analysis()
    sizes = memory.temp_size_in_bytes, memory.peak_memory_in_bytes
    return compiled, [tracing, compiling, *(size / 1e6 for size in sizes)]


def computing(program: Any) -> Callable[[], Any]:
    """A function that runs a program on the CPU, with ones for its arrays."""
    import jax

    given = jax.tree.map(lambda each: np.ones(each.shape, each.dtype), program.in_avals[0])
    arrays = jax.device_put(given, program.input_shardings[0])
    return lambda: jax.block_until_ready(program(*arrays))


def main(
    target: Annotated[str, typer.Option(metavar="NAME", help="As nfspec lower has it.")] = "cpu",
    times: Annotated[str, typer.Option(help="Depths, in times of NFNet-F0's.")] = "1,2,4",
    own: Annotated[bool, typer.Option("--real", help="NFNet-F0's own widths, 96 px.")] = False,
) -> None:
    """Print the seconds before the first step for several depths."""
    compilation.select("jax")
    for spec in [real()] if own else [narrow(n) for n in map(int, times.split(","))]:
        count = str(sum(spec.stages.depth))
        rows: list[Sequence[str]] = [
            ("blocks", "program", "make", "trace", "compile", "temporaries, MB", "peak, MB", "ms")
        ]
        if target == "cpu":
            say(f"{count} blocks: the training step ...")
            cells = (f"{seconds:.1f}" for seconds in first_step(spec))
            rows.append((count, "step", *cells, "", "", ""))
        programs, lines = [], []
        for name, looped in (("gradients", False), ("gradients, loops", True)):
            say(f"{count} blocks: {name} ...")
            program, figures = compiled_gradients(spec, target, looped)
            programs.append(program)
            lines.append((count, name, "", *(f"{figure:.1f}" for figure in figures)))
        taken = in_turns([computing(each) for each in programs]) if target == "cpu" else []
        ms = [f"{1e3 * seconds:.1f}" for seconds in taken] or ["", ""]
        rows += [(*line, each) for line, each in zip(lines, ms, strict=True)]
        print_lines(table(rows, "><>>>>>>"))


if __name__ == "__main__":
    typer.run(main)
