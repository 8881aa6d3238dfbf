"""Core ML's ML programs, read and run in NumPy, so that a file is proved where Core ML is not.

Operators are computed in float64 as the documentation of coremltools 9 has them
(converters/mil/mil/ops/defs). Programs with others are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nfspec.backends.exporters.settings import IMAGES
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.plan.activations import apply

Array = NDArray[Any]
MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")
ENTRY = struct.Struct("<IIQQ")  # before each array: a mark, its dtype, bytes, and where they are
MARK = 0xDEADBEEF


def spec_of(path: Path) -> Any:
    """The model's description, a message of protobuf.

    Raises:
        InputError: It is none.
        OSError: It is not a regular file that can be opened.
    """
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    spec = Model_pb2.Model()
    with opened(path / MODEL) as file:
        try:
            spec.ParseFromString(file.read())
        except DecodeError:
            raise InputError(f"{path}: {MODEL} in it is no model of Core ML") from None
    return spec


def main(spec: Any, path: Path) -> Any:
    """The operations of a model's one function.

    Raises:
        InputError: The model has no program.
    """
    functions = spec.mlProgram.functions
    blocks = functions["main"].block_specializations if "main" in functions else {}
    if len(functions) != 1 or len(blocks) != 1:
        raise InputError(f"{path}: expected a model with one program, as nfspec writes it")
    return next(iter(blocks.values()))


def constants(block: Any, path: Path) -> dict[str, Array]:
    """Name to value of every constant.

    Raises:
        InputError: A value is not in the file.
        OSError: The weights cannot be read.
    """
    data = b""
    if (path / WEIGHTS).exists():
        with opened(path / WEIGHTS) as file:
            data = file.read()
    found = {}
    for op in block.operations:
        if op.type == "const":
            found[op.outputs[0].name] = _value(op.attributes["val"], data, path)
    return found


def _value(value: Any, data: bytes, path: Path) -> Array:
    """A constant, from the program or from the weights beside it.

    Raises:
        InputError: It is of another kind, or not in the file.
    """
    kind = value.type.tensorType
    shape = [each.constant.size for each in kind.dimensions]
    types = kind.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    dtype = types[kind.dataType].name
    if value.WhichOneof("value") == "blobFileValue":
        start = value.blobFileValue.offset
        entry = data[start : start + ENTRY.size]
        mark, _, size, place = ENTRY.unpack(entry) if len(entry) == ENTRY.size else (0, 0, 0, 0)
        whole = data[place : place + size]
        if mark != MARK or len(whole) != size or dtype not in ("FLOAT32", "FLOAT16"):
            raise InputError(f"{path}: a weight is not in {WEIGHTS}")
        array = np.frombuffer(whole, "<f4" if dtype == "FLOAT32" else "<f2")
    else:
        tensor = value.immediateValue.tensor
        held = tensor.WhichOneof("value") or "floats"
        values = getattr(tensor, held).values
        array = np.frombuffer(values, "<f2") if held == "bytes" else np.array(values)
    if array.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path}: a constant has not the number of values of its shape")
    return array.reshape(shape)


def _windows(
    x: Array, sizes: Array, strides: Array, pad: Array, fill: float, dilations: Any = (1, 1)
) -> Array:
    """All windows of a padded image: (N, C, Ho, Wo, kernel, kernel), a view."""
    around = [(0, 0), (0, 0), (int(pad[0]), int(pad[1])), (int(pad[2]), int(pad[3]))]
    padded = np.pad(x, around, constant_values=fill)
    apart = [int(each) for each in dilations]
    extents = tuple(1 + n * (int(size) - 1) for n, size in zip(apart, sizes, strict=True))
    view = sliding_window_view(padded, extents, axis=(2, 3))
    view = view[:, :, :: int(strides[0]), :: int(strides[1])]
    return view[..., :: apart[0], :: apart[1]]


def _conv(given: Mapping[str, Any]) -> Array:
    weight, groups = given["weight"].astype(np.float64), int(given.get("groups", 1))
    how = given["strides"], given["pad"], 0.0, given.get("dilations", (1, 1))
    view = _windows(given["x"], weight.shape[2:], *how)
    n, channels, *sides = view.shape[:4]
    parts = view.reshape(n, groups, channels // groups, *sides, *weight.shape[2:])
    kernel = weight.reshape(groups, -1, *weight.shape[1:])
    out = np.einsum("ngchwij,gocij->ngohw", parts, kernel, optimize=True)
    out = out.reshape(n, len(weight), *sides)
    return out + given["bias"].reshape(-1, 1, 1) if "bias" in given else out


def _avg_pool(given: Mapping[str, Any]) -> Array:
    how = given["kernel_sizes"], given["strides"], given["pad"]
    total = _windows(given["x"], *how, 0.0).sum((4, 5))
    if not given["exclude_padding_from_average"]:
        return total / np.prod(how[0])
    inside = _windows(np.ones((1, 1, *given["x"].shape[2:])), *how, 0.0).sum((4, 5))
    return np.asarray(total / inside)


def _max_pool(given: Mapping[str, Any]) -> Array:
    how = given["kernel_sizes"], given["strides"], given["pad"]
    return np.asarray(_windows(given["x"], *how, -np.inf).max((4, 5)))


def _elu(given: Mapping[str, Any]) -> Array:
    x = given["x"]
    return np.where(x > 0, x, given["alpha"] * np.expm1(np.minimum(x, 0.0)))


def _plain(kind: str) -> Callable[[Mapping[str, Any]], Array]:
    return lambda given: apply(kind, given["x"])


GELU = {"EXACT": "gelu_erf", "TANH_APPROXIMATION": "gelu_tanh"}
OPERATORS: Mapping[str, Callable[[Mapping[str, Any]], Array]] = {
    "add": lambda given: given["x"] + given["y"],
    "avg_pool": _avg_pool,
    "cast": lambda given: given["x"],  # dtypes are those of storage; arithmetic is float64
    "conv": _conv,
    "elu": _elu,
    "gelu": lambda given: apply(GELU[str(given["mode"])], given["x"]),
    "identity": lambda given: given["x"],
    "leaky_relu": lambda given: apply("leaky_relu", given["x"], float(given["alpha"])),
    "linear": lambda given: given["x"] @ given["weight"].T.astype(np.float64) + given["bias"],
    "max_pool": _max_pool,
    "mul": lambda given: given["x"] * given["y"],
    "reduce_mean": lambda given: given["x"].mean(
        tuple(given["axes"]), keepdims=bool(given["keep_dims"])
    ),
    "relu": _plain("relu"),
    "relu6": _plain("relu6"),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "softplus": _plain("softplus"),
    "softsign": _plain("soft_sign"),
    "sub": lambda given: given["x"] - given["y"],
    "tanh": _plain("tanh"),
    "transpose": lambda given: given["x"].transpose(given["perm"]),
}


@dataclass
class Program:
    """A model's program, which is called with images as the model takes them.

    Attributes:
        path: The folder.
        block: Its operations.
        constants: Name to value of every constant.
    """

    path: Path
    block: Any
    constants: Mapping[str, Array]

    @classmethod
    def read(cls, path: Path) -> Program:
        """The program of a folder.

        Raises:
            InputError: It has none, or one with operators that nfspec does not write.
            OSError: It cannot be read.
        """
        block = main(spec_of(path), path)
        for op in block.operations:
            if op.type not in OPERATORS and op.type != "const":
                raise InputError(f"{path}: it has {op.type}, which nfspec does not write")
        return cls(path, block, constants(block, path))

    def __call__(self, images: Array) -> dict[str, Array]:
        values: dict[str, Any] = {**self.constants, IMAGES: images.astype(np.float64)}
        for op in self.block.operations:
            if op.type != "const":
                given = {
                    key: values[each.arguments[0].name]
                    if each.arguments[0].name
                    else _value(each.arguments[0].value, b"", self.path)
                    for key, each in op.inputs.items()
                }
                values[op.outputs[0].name] = OPERATORS[op.type](given)
        return {name: values[name].astype(np.float32) for name in self.block.outputs}
