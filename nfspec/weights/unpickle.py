"""Pickles of arrays, read without running anything that they name.

DeepMind's weight files are pickles written by dill, which ask for NumPy's and dill's own helpers.
Here those names stand for small functions of this file, which take the bytes, dtype and shape that
a pickle gives and check them against one another; every other name is refused. A pickle can thus
make dicts, lists, tuples, numbers, text and arrays of numbers.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import WeightError
from nfspec.weights.files import reading
from nfspec.wording import printable

MAX_OPCODES = 5_000_000  # a network of 2,000 blocks, the most of any spec, takes 1.5 million
MAX_PARTS = 100  # of a tuple and the tuples in it; an array's take a dozen
SETS = ("EMPTY_SET", "FROZENSET", "ADDITEMS")  # hashed and printed through all that they hold
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")

# What reading a pickle of nonsense can raise; a WeightError passes.
UNREADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def array(self, data: bytes, shape: tuple[int, ...], order: str) -> NDArray[Any]:
        if self.code not in DTYPES:
            raise WeightError(f"holds an array of dtype {ascii(self.code)[:40]}, expected numbers")
        if self.order not in ("<", ">", "=", "|"):
            raise ValueError("no byte order")
        dtype = np.dtype(self.order + self.code)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


class PickledArray:
    """Stands for an array whose bytes come in a later instruction."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        self.array = dtype.array(data, shape, "F" if fortran else "C")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[Any]:
        return self.array


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.known: dict[tuple[str, str], Any] = {
            ("builtins", "dict"): dict,
            # Not the class itself, whose instances a pickle can give attributes such as `items`.
            ("collections", "OrderedDict"): dict,
            ("_codecs", "encode"): self._encode,
            ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument
            ("numpy", "dtype"): _Dtype,
            # Haiku's own mappings pickle as a call of a class with a dict.
            ("haiku._src.data_structures", "FlatMapping"): dict,
            ("haiku._src.data_structures", "FlatMap"): dict,
            ("dill._dill", "_create_array"): self._create_array,
            ("dill._dill", "_import_module"): self._import_module,
            ("dill._dill", "_get_attr"): self.find_class,
        }
        for core in ("numpy.core", "numpy._core"):
            for module in ("multiarray", "_multiarray_umath"):
                self.known[f"{core}.{module}", "_reconstruct"] = PickledArray
                self.known[f"{core}.{module}", "scalar"] = self._scalar
            self.known[f"{core}.numeric", "_frombuffer"] = self._frombuffer

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self.known.get((module, name))
        if stand_in is None:
            what = ascii(f"{module}.{name}")[1:-1][:100]
            raise WeightError(f"refused to run {what}; DeepMind's files hold arrays only")
        return stand_in

    # Bound methods, so that a pickle cannot set an attribute of what it was given.

    def _encode(self, text: str, _encoding: str) -> bytes:
        return text.encode("latin1")  # protocol 2's way to write bytes

    def _scalar(self, dtype: _Dtype, data: bytes) -> NDArray[Any]:
        return dtype.array(data, (), "C")

    def _frombuffer(
        self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str
    ) -> NDArray[Any]:
        return dtype.array(data, shape, order)

    def _create_array(self, _call: object, _args: object, state: Any, *_: object) -> PickledArray:
        array = PickledArray()
        array.__setstate__(state)
        return array

    def _import_module(self, name: str) -> str:
        if not isinstance(name, str):
            raise TypeError("a module's name is text")
        return name


def scan(file: IO[bytes]) -> None:
    """Refuse what would take memory or time out of proportion to the file, running nothing.

    The unpickler keeps a table as long as the largest memo number it meets, and a writer numbers
    from 0 without gaps. A tuple as a key is hashed through all that it holds, and one that holds
    another twice, and so on, has no end; so the parts of each tuple are counted, and there are no
    sets.

    Args:
        file: At the start of a pickle; it is left at the pickle's end.

    Raises:
        ValueError: The pickle is not what a writer of weights makes.
    """
    parts: list[int] = []  # of each object on the stack; 0 for a mark
    memo: dict[int, int] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if name == "MEMOIZE" or name.endswith("PUT"):
            number = len(memo) if argument is None else argument
            if number > count:
                raise ValueError("memo number out of order")
            memo[number] = parts[-1]
        elif name.endswith("GET"):
            parts.append(memo[argument])
        else:
            taken = _take(parts, opcode)
            made = 1 + sum(taken) if "TUPLE" in name else 1
            if made > MAX_PARTS or count >= MAX_OPCODES or name == "DUP" or name in SETS:
                raise ValueError("not what a writer of weights makes")
            parts += [0 if kind is pickletools.markobject else made for kind in opcode.stack_after]


def _take(parts: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take off the stack what an instruction uses."""
    kinds = opcode.stack_before
    start = len(parts) - len(kinds)
    if pickletools.markobject in kinds:
        mark = len(parts) - 1
        while parts[mark]:
            mark -= 1
        start = mark - kinds.index(pickletools.markobject)
    taken = parts[start:]
    del parts[start:]
    return taken


def read_pickle(path: Path) -> Any:
    """Read a pickle of dicts and arrays; an array is anything that `numpy.asarray` takes.

    Raises:
        WeightError: Unreadable, not a pickle, or one that wants to run something.
    """
    label = printable(str(path))
    with reading(path) as file:
        start = file.read(2)
        if start == b"PK":
            message = "a zip archive, as numpy.savez writes; DeepMind's .npz files are pickles"
            raise WeightError(f"{label}: {message}")
        if start[:1] != b"\x80":
            raise WeightError(f"{label}: not a pickle, which DeepMind's .npz files are")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pickletools warns of nonsense in text
                file.seek(0)
                scan(file)
                file.seek(0)
                return _Unpickler(file).load()
        except WeightError as error:
            raise WeightError(f"{label}: {error}") from None
        except UNREADABLE:
            raise WeightError(f"{label}: a pickle that is damaged or cut short") from None
