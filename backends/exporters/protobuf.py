"""An ONNX file written tensor by tensor, so that its weights are never all in memory.

The library serialises a whole model at once, which takes three times its weights. A message of
Protocol Buffers is its fields one after another, each with a tag, and a length where it is a
message or bytes (https://protobuf.dev/programming-guides/encoding/), so the weights' fields can
follow the others. A message is at most 2 GB long; weights beyond that are in a file beside it, as
ONNX's external data are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from onnx import ModelProto, StringStringEntryProto, TensorProto

# Tags of fields of bytes and messages, by onnx.proto: number * 8 + 2.
GRAPH, INITIALIZER, RAW_DATA = 7 * 8 + 2, 5 * 8 + 2, 9 * 8 + 2
LONGEST = 2_000_000_000  # bytes of weights in a file by themselves
ALIGNED = 4096  # bytes at which external data start, so that runtimes can map them into memory


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _field(tag: int, length: int) -> bytes:
    """The tag and length that stand before the bytes of a field."""
    return bytes([tag]) + _varint(length)


def sizes(tensors: list[TensorProto]) -> list[int]:
    """The bytes of each tensor's values."""
    return [math.prod(t.dims) * (4 if t.data_type == TensorProto.FLOAT else 2) for t in tensors]


def write(
    path: Path, model: ModelProto, tensors: list[TensorProto], values: Iterator[NDArray[Any]]
) -> None:
    """Write a model with its weights; weights that are too long for it go to `PATH.data`.

    Args:
        path: The file.
        model: The model without its weights.
        tensors: Name, shape and dtype of each weight, without its values.
        values: Its values, in the same order.

    Raises:
        OSError: A file cannot be written.
    """
    with path.open("wb") as file:
        if sum(sizes(tensors)) <= LONGEST:
            _write_whole(file, model, tensors, values)
            return
        beside = path.with_name(f"{path.name}.data")
        _locate(tensors, beside.name)
        model.graph.initializer.extend(tensors)
        file.write(model.SerializeToString(deterministic=True))
    with beside.open("wb") as data:
        for value in values:
            data.write(b"\0" * (-data.tell() % ALIGNED))
            data.write(value.data)


def _locate(tensors: list[TensorProto], name: str) -> None:
    """Say in each tensor where its values are in another file."""
    at = 0
    for tensor, size in zip(tensors, sizes(tensors), strict=True):
        at += -at % ALIGNED
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": at, "length": size}.items():
            tensor.external_data.append(StringStringEntryProto(key=key, value=str(value)))
        at += size


def _write_whole(
    file: BinaryIO, model: ModelProto, tensors: list[TensorProto], values: Iterator[NDArray[Any]]
) -> None:
    heads = []
    for tensor, size in zip(tensors, sizes(tensors), strict=True):
        head = tensor.SerializeToString(deterministic=True) + _field(RAW_DATA, size)
        heads.append(_field(INITIALIZER, len(head) + size) + head)
    graph = model.graph.SerializeToString(deterministic=True)
    model.graph.Clear()
    model.ClearField("graph")
    length = len(graph) + sum(map(len, heads)) + sum(sizes(tensors))
    file.write(model.SerializeToString(deterministic=True) + _field(GRAPH, length) + graph)
    for head, value in zip(heads, values, strict=True):
        file.write(head)
        file.write(value.data)
