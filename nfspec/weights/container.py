"""Read and write safetensors files: opened once to be read, and equal bytes for equal weights.

The library of that name (0.8.0) opens files by path alone and maps them into memory, so that a file
that is cut short meanwhile ends the process; it has no bfloat16 for NumPy, and it writes metadata
in an order drawn at random. The format is at https://github.com/huggingface/safetensors#format:
eight bytes of length, a JSON object of names, dtypes, shapes and offsets, and the tensors.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import WeightError
from nfspec.weights.checking import Shape
from nfspec.weights.files import reading, writing
from nfspec.wording import printable

MAX_HEADER = 32 * 2**20  # bytes; the checkpoint of the largest network of any spec takes 18 MiB
MAX_DIMENSIONS = 64  # NumPy allows no more
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
CODES = {name: code for code, name in DTYPES.items()}
DAMAGED = "a safetensors file that is damaged or cut short; download or save it again"


@dataclass(frozen=True)
class Stored:
    """A tensor in an open file. Its values are read when it is converted to an array.

    Attributes:
        shape: Its shape.
        dtype: NumPy's name of its dtype, or the name in the file if NumPy does not have it.
        start: Position of its first byte in the file.
        file: The file.
    """

    shape: Shape
    dtype: str
    start: int
    file: BinaryIO

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[Any]:
        """Read a new array; bfloat16 becomes float32, which holds all its values.

        Raises:
            ValueError: NumPy does not have the dtype.
            OSError: The file cannot be read, or has become shorter.
        """
        if self.dtype not in CODES:
            raise ValueError(f"no dtype {self.dtype} in NumPy")
        brain = self.dtype == "bfloat16"
        array = np.empty(self.shape, np.dtype("uint16" if brain else self.dtype).newbyteorder("<"))
        into = array.reshape(-1).view(np.uint8)
        self.file.seek(self.start)
        if self.file.readinto(into) != array.nbytes:  # type: ignore[attr-defined]
            raise OSError(errno.EIO, "it became shorter while it was read")
        return np.asarray(array.astype(np.uint32) << 16).view(np.float32) if brain else array


@dataclass(frozen=True)
class Contents:
    """Tensors of an open file by name, in the order of names, and its metadata."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


def _refuse(_: str) -> NoReturn:
    raise ValueError("not a number of JSON's")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name twice")
    return table


def _numbers(value: Any) -> tuple[int, ...]:
    whole = type(value) is list and all(type(n) is int and 0 <= n < 2**63 for n in value)
    if not whole or len(value) > MAX_DIMENSIONS:
        raise ValueError("not a list of sizes")
    return tuple(value)


def _parse(file: BinaryIO) -> Contents:
    """Read the header of a file, whose tensors must fill the rest of it without gaps.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: It is damaged.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise ValueError("longer than the file")
    text = file.read(length).decode()
    table = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    metadata = table.pop("__metadata__", None) or {}
    if not all(isinstance(value, str) for value in dict.values(metadata)):
        raise ValueError("metadata that is not text")
    places: list[tuple[int, int]] = []
    tensors = {}
    for name in sorted(table):
        code, shape = table[name]["dtype"], _numbers(table[name]["shape"])
        start, end = _numbers(table[name]["data_offsets"])
        dtype = DTYPES.get(code, printable(code[:20]))
        if code in DTYPES and math.prod(shape) * _itemsize(dtype) != end - start:
            raise ValueError("a size that is not the shape's")
        places.append((start, end))
        tensors[name] = Stored(shape, dtype, 8 + length + start, file)
    at = 0
    for start, end in sorted(places):
        if start != at or end < start:
            raise ValueError("tensors that overlap, or a gap between them")
        at = end
    if 8 + length + at != size:
        raise ValueError("longer or shorter than its tensors")
    return Contents(tensors, metadata)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _guess(start: bytes) -> str:
    text = "not a safetensors file"
    if start.startswith(b"PK"):
        return f"{text} but a zip archive; for a .pth of timm's use nfspec.weights.from_timm"
    if start.startswith(b"\x80"):
        return f"{text} but a pickle; for DeepMind's files use nfspec.weights.from_deepmind"
    return text


@contextmanager
def contents(path: Path) -> Iterator[Contents]:
    """Open a safetensors file; its tensors can be read as long as the block lasts.

    Raises:
        WeightError: Unreadable, or not a whole safetensors file.
    """
    label = printable(str(path))
    with reading(path) as file:
        start = file.read(9)
        if start[8:] != b"{":
            raise WeightError(f"{label}: {_guess(start)}")
        try:
            whole = _parse(file)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError):
            raise WeightError(f"{label}: {DAMAGED}") from None
        yield whole


def write(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; the same bytes for the same content.

    Raises:
        WeightError: The file cannot be written.
    """
    # Larger items first, so that each tensor starts at a multiple of its own items.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name in names:
        array = tensors[name]
        code = CODES[array.dtype.name]
        table[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [at, at := at + array.nbytes],
        }
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with writing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            array = np.asarray(tensors[name])
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
