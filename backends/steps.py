"""The calls of a network in order, and the regions of it that are computed again backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras

from nfspec.backends.layers.drop import Drop


class Step(NamedTuple):
    """A layer, what it reads and writes by number, and what nothing reads after it."""

    layer: keras.layers.Layer
    inputs: tuple[int, ...]
    output: int
    last: tuple[int, ...]


class Region(NamedTuple):
    """Steps, what they read of others and what others read of them, by number, what nothing reads
    after them, whether they are computed again in the backward pass, and on PyTorch the module
    through which they are called, where that gathers its parameters."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last: tuple[int, ...]
    again: bool
    part: str
    module: Any = None


def steps_of(model: keras.Model) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The calls of a functional model in order, and the numbers of its outputs; 0 is the input."""
    numbers = {id(model.inputs[0]): 0}
    calls: list[tuple[keras.layers.Layer, tuple[int, ...], int]] = []
    by_depth = model._nodes_by_depth
    for node in (node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]):
        if not node.is_input:
            read = tuple(numbers[id(x)] for x in node.input_tensors)
            number = numbers[id(node.outputs[0])] = len(numbers)
            calls.append((node.operation, read, number))
    wanted = tuple(numbers[id(x)] for x in model.outputs)
    last_use = {number: i for i, (_, read, _) in enumerate(calls) for number in read}
    return tuple(
        Step(
            layer,
            read,
            number,
            tuple(n for n in set(read) if last_use[n] == i and n not in wanted),
        )
        for i, (layer, read, number) in enumerate(calls)
    ), wanted


def regions_of(
    steps: Sequence[Step], wanted: Sequence[int], part: Callable[[Step], str]
) -> tuple[Region, ...]:
    """Steps in regions of one part each, such as a block.

    Args:
        steps: The calls of a network.
        wanted: Numbers of its outputs.
        part: A function of a step; empty for one that is not computed again.
    """
    order: dict[str, list[Step]] = {}
    for i, step in enumerate(steps):
        order.setdefault(part(step) or f"step {i}", []).append(step)
    made: list[Region] = []
    seen = {*wanted}  # what is read later
    for name, own in reversed(order.items()):
        written = {step.output for step in own}
        read = dict.fromkeys(n for step in own for n in step.inputs if n not in written)
        others = {n for step in steps if step not in own for n in step.inputs} | {*wanted}
        outputs = tuple(step.output for step in own if step.output in others)
        last = tuple(number for number in read if number not in seen)
        seen |= {*read}
        again = not name.startswith("step ")
        made.insert(0, Region(tuple(own), tuple(read), outputs, last, again, name * again))
    return tuple(made)


def part_of(depth: int) -> Callable[[Step], str]:
    """A function of a step: the stem, or the first words of a block's name, such as
    `stages.2.blocks.5` of depth 4; empty for the head."""

    def part(step: Step) -> str:
        words = getattr(step.layer, "canonical", "").split(".")
        return ".".join(words[:depth]) if words[0] == "stages" else "stem" * (words[0] == "stem")

    return part


def by_regions(
    model: Any,
    x: Any,
    training: bool,
    draw: Callable[[Drop, Any], Any],
    layer: Callable[[Any, list[Any]], Any],
) -> Any:
    """The outputs of a network whose regions are computed again in the backward pass.

    Args:
        model: The network.
        x: Images, a tensor.
        training: Drop at random. What decides it is drawn before a region, once for both passes.
        draw: A function of a layer and a shape, which draws numbers of [0, 1).
        layer: A function of a layer and what it reads, which returns its output.
    """
    values = {0: keras.ops.convert_to_tensor(x, dtype=model.inputs[0].dtype)}
    images = keras.ops.shape(x)[0]
    for region in model.regions:
        drops = [step.layer for step in region.steps if isinstance(step.layer, Drop)]
        drops = [each for each in drops if training and each.rate and each.per_image]
        drawn = [draw(each, (images,)) for each in drops]
        compute = partial(_compute, region, training, layer)
        given = [values[number] for number in region.inputs]
        run = keras.remat(compute) if region.again else compute
        run = run if region.module is None else partial(region.module, run)
        found = run(*given, *drawn)
        values.update(zip(region.outputs, found, strict=True))
        for number in region.last:
            del values[number]
    wanted = model.steps[1]
    return keras.tree.pack_sequence_as(model._outputs_struct, [values[n] for n in wanted])


def _compute(
    region: Region, training: bool, layer: Callable[[Any, list[Any]], Any], *given: Any
) -> tuple[Any, ...]:
    values = dict(zip(region.inputs, given[: len(region.inputs)], strict=True))
    drawn = list(given[len(region.inputs) :])
    for step in region.steps:
        read, drop = [values[number] for number in step.inputs], step.layer
        if isinstance(drop, Drop) and drop.per_image:
            x = read[0]
            if training and drop.rate:
                x = drop.drop(x, keras.ops.reshape(drawn.pop(0), drop.draws(x)))
            values[step.output] = x
        else:
            values[step.output] = layer(step.layer, read)
    return tuple(values[number] for number in region.outputs)
