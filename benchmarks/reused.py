"""The first training step on TensorFlow by depth, and what equal blocks as one program save.

    python -m nfspec.benchmarks.reused --times 1,2,4
    python -m nfspec.benchmarks.reused --times 4 --ways functions
    python -m nfspec.benchmarks.reused --real

Ways: `blocks` one after another, as nfspec has them; `functions`, where equal blocks call one
traced function with their parameters as its arguments; `loops`, where they are the body of
`tf.while_loop` over stacked parameters. The networks are those of `nfspec.benchmarks.depth`, or
with `--real` NFNet-F0 on images of 96 px. Seconds are a processor's; the ways take later steps in
turns. Memory is the process's peak so far, so it says something of a way that has a process alone.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
import typer

from nfspec import compilation
from nfspec.backends.network import Network
from nfspec.backends.steps import Region, steps_of
from nfspec.benchmarks import equal
from nfspec.benchmarks.depth import IMAGES, in_turns, narrow, real, timed
from nfspec.console import print_lines, say, table
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve
from nfspec.training.runs import recipe

Way = Literal["blocks", "functions", "loops"]
WAYS: tuple[Way, ...] = ("blocks", "functions", "loops")


def forward(model: Network, way: Way, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """The logits of a network in training, its equal blocks as one program.

    Args:
        model: A network on TensorFlow.
        way: How equal blocks are computed.
        inputs: Images, (N, H, W, C).
        training, mask: As Keras calls a model; not used.
    """
    values = {0: tf.convert_to_tensor(inputs)}
    for regions in equal.equal_blocks(model):
        drawn = [equal.drawn(region, values[0].shape[0]) for region in regions]
        given = [values[number] for number in regions[0].inputs]
        if len(regions) == 1:
            found = equal.block(regions[0], given, drawn[0])
        elif way == "functions":
            found = [_calls(regions, given[0], drawn)]
        else:
            found = [_loop(regions, given[0], drawn)]
        values.update(zip(regions[-1].outputs, found, strict=True))
    return values[steps_of(model)[1][0]]


def _calls(regions: Sequence[Region], x: Any, drawn: Sequence[Sequence[Any]]) -> Any:
    """Each block a call of one function."""
    places, rows = equal.differing(regions)

    def body(x: Any, arrays: Any, scalars: Any, drawn: Any) -> Any:
        with equal.given(regions[0], arrays, places, scalars):
            return equal.block(regions[0], [x], drawn)[0]

    # Else it is copied into each place before it is optimised, and only tracing gets shorter.
    attributes = {"_noinline": True}
    function = tf.function(body, autograph=False, experimental_attributes=attributes)
    for region, row, draws in zip(regions, rows, drawn, strict=True):
        arrays = [v.value for v in equal.parameters(region)]
        x = function(x, arrays, [tf.constant(number) for number in row], draws)
    return x


def _loop(regions: Sequence[Region], x: Any, drawn: Sequence[Sequence[Any]]) -> Any:
    """The blocks as a loop over what differs between them, stacked."""
    places, rows = equal.differing(regions)
    count = len(regions)
    own = [
        [*(v.value for v in equal.parameters(region)), *map(tf.constant, row), *draws]
        for region, row, draws in zip(regions, rows, drawn, strict=True)
    ]
    stacks = [
        tf.TensorArray(each[0].dtype, count).unstack(tf.stack(each))
        for each in zip(*own, strict=True)
    ]
    ends = np.cumsum([len(equal.parameters(regions[0])), len(places)])

    def body(i: Any, x: Any) -> tuple[Any, Any]:
        read = [stack.read(i) for stack in stacks]
        arrays, scalars, draws = read[: ends[0]], read[ends[0] : ends[1]], read[ends[1] :]
        with equal.given(regions[0], arrays, places, scalars):
            return i + 1, equal.block(regions[0], [x], draws)[0]

    start = (tf.constant(0), x)
    return tf.while_loop(lambda i, _: i < count, body, start, maximum_iterations=count)[1]


def first_step(
    spec: Spec, way: Way = "blocks", xla: bool = False
) -> tuple[Callable[[], float], list[float], int]:
    """A training step that ran once, the seconds to make, to trace and to run it, and the number
    of operations of its graph.

    Args:
        spec: The network.
        way: How equal blocks are computed.
        xla: Compile the step by XLA, as Keras's `fit` does.
    """
    model, built = timed(lambda: compilation.compile(spec, "tensorflow"))
    if way != "blocks":
        object.__setattr__(model, "call", partial(forward, model, way))
    trainer = recipe(resolve(spec), steps=100, batch=IMAGES).compile(model)
    side, classes = spec.input.train, spec.head.classes
    x = np.random.default_rng(0).standard_normal((IMAGES, side, side, 3), np.float32)
    y = np.eye(classes, dtype="float32")[:IMAGES]
    _, prepared = timed(lambda: trainer.optimizer.build(trainer.trainable_variables))
    trainer._symbolic_build(data_batch=(x, y))
    batch = tf.constant(x), tf.constant(y)
    graph = tf.function(
        lambda *batch: trainer.train_step(batch)["loss"], autograph=False, jit_compile=xla or None
    )
    concrete, traced = timed(lambda: graph.get_concrete_function(*batch))
    _, ran = timed(lambda: float(graph(*batch)))
    made = concrete.graph.as_graph_def()
    operations = len(made.node) + sum(len(f.node_def) for f in made.library.function)
    return lambda: float(graph(*batch)), [built + prepared, traced, ran], operations


def main(
    times: Annotated[str, typer.Option(help="Depths, in times of NFNet-F0's.")] = "1,2,4",
    ways: Annotated[str, typer.Option(help="Ways, with commas.")] = ",".join(WAYS),
    own: Annotated[bool, typer.Option("--real", help="NFNet-F0's own widths, 96 px.")] = False,
    xla: Annotated[bool, typer.Option("--xla", help="Compile the step by XLA.")] = False,
) -> None:
    """Print the seconds before the second step, and of later steps, for several depths."""
    compilation.select("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for spec in [real()] if own else [narrow(n) for n in map(int, times.split(","))]:
        count = f"{sum(spec.stages.depth)}"
        lines, steps = [], []
        for way in [way for way in WAYS if way in ways.split(",")]:
            keras.utils.set_random_seed(0)
            say(f"{count} blocks: {way} ...")
            step, seconds, operations = first_step(spec, way, xla)
            steps.append(step)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            figures = (f"{operations:,}", *(f"{s:.1f}" for s in seconds), f"{peak:.0f}")
            lines.append((count, way, *figures))
        title = ("blocks", "way", "operations", "make", "trace", "first run", "MB", "ms a step")
        found = zip(lines, in_turns(steps), strict=True)
        rows = [title, *((*line, f"{1e3 * median:.1f}") for line, median in found)]
        print_lines(table(rows, "><>>>>>>"))


if __name__ == "__main__":
    typer.run(main)
