"""Pickles, instruction by instruction: valid ones taken apart, and new ones put together."""

from __future__ import annotations

import pickletools
import struct

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

NAMES = (
    b"os system", b"posix system", b"subprocess Popen", b"builtins eval", b"builtins exec",
    b"builtins getattr", b"builtins __import__", b"builtins dict", b"builtins set",
    b"builtins frozenset", b"builtins bytearray", b"builtins slice", b"builtins range",
    b"collections OrderedDict", b"collections Counter", b"argparse Namespace", b"pathlib PosixPath",
    b"_codecs encode", b"copyreg _reconstructor", b"functools partial", b"operator attrgetter",
    b"importlib import_module", b"socket socket", b"io open", b"numpy ndarray", b"numpy dtype",
    b"numpy load", b"numpy.core.multiarray _reconstruct", b"numpy._core.multiarray scalar",
    b"numpy._core.numeric _frombuffer", b"numpy.core.multiarray fromfile",
    b"haiku._src.data_structures FlatMapping", b"dill._dill _create_array",
    b"dill._dill _import_module", b"dill._dill _get_attr", b"dill._dill _create_function",
    b"torch FloatStorage", b"torch DoubleStorage", b"torch BFloat16Storage", b"torch float32",
    b"torch Tensor", b"torch.storage UntypedStorage", b"torch._utils _rebuild_tensor_v2",
    b"torch._utils _rebuild_parameter", b"torch._utils _rebuild_qtensor",
    b"torch._utils _rebuild_sparse_tensor", b"torch.nn.modules.linear Linear",
    b"torch.serialization load", b"torch Size", b"nfspec.weights.unpickle _Dtype",
)  # fmt: skip


def text(value: str | bytes) -> bytes:
    """The instruction that puts text on the stack."""
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """The shortest instruction that puts a whole number on the stack."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(data)) + data


def name(module: str | bytes, attribute: str | bytes) -> bytes:
    """The instruction that asks for an attribute of a module."""
    module = module.encode() if isinstance(module, str) else module
    attribute = attribute.encode() if isinstance(attribute, str) else attribute
    return b"c" + module + b"\n" + attribute + b"\n"


def program(value: bytes, protocol: int = 3) -> bytes:
    """A whole pickle of the instructions that make one value."""
    return b"\x80" + bytes([protocol]) + value + b"."


def instructions(data: bytes) -> list[bytes]:
    """A pickle taken apart."""
    starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


_SIMPLE = (
    b"N", b"\x88", b"\x89", b")", b"}", b"]", b"\x8f", b"I01\n", b"L1L\n", b"F1e999\n", b"Vx\n",
    b"S'x'\n", b"Pid\n", b"\x82\x01", b"\x97", b"\x95" + bytes(8),
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 255, -1, 2**31 - 1, -(2**31), 2**63, 2**200, 2**4000)
_FLOATS = (0.0, 1.5, float("nan"), float("inf"), 1e308)
_TEXTS = (
    "", "w", "b", "<", ">", "f4", "O8", "V8", "latin1", "a/~/b", "\x1b[2J", "\ud800",
    "head.fc.bias", "state_dict", "storage", "cpu", "0", "../../x", "x" * 300,
)  # fmt: skip
_LEAVES: SearchStrategy[bytes] = st.one_of(
    st.sampled_from(_SIMPLE),
    st.sampled_from(_NUMBERS).map(number),
    st.sampled_from(_FLOATS).map(lambda value: b"G" + struct.pack(">d", value)),
    st.sampled_from(_TEXTS).map(text),
    st.binary(max_size=12).map(lambda value: b"C" + bytes([len(value)]) + value),
    st.sampled_from(NAMES).map(lambda both: name(*both.split())),
    st.integers(0, 6).map(lambda place: b"h" + bytes([place])),
)


def _larger(inner: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    few = st.lists(inner, max_size=4)
    pairs = st.lists(st.tuples(inner, inner).map(b"".join), max_size=3).map(b"".join)
    two, three = st.tuples(inner, inner).map(b"".join), st.tuples(inner, inner, inner).map(b"".join)
    return st.one_of(
        inner.map(lambda one: one + b"\x85"),
        two.map(lambda both: both + b"\x86"),
        three.map(lambda all_: all_ + b"\x87"),
        few.map(lambda all_: b"(" + b"".join(all_) + b"t"),
        few.map(lambda all_: b"(" + b"".join(all_) + b"l"),
        few.map(lambda all_: b"](" + b"".join(all_) + b"e"),
        few.map(lambda all_: b"\x8f(" + b"".join(all_) + b"\x90"),  # a set
        few.map(lambda all_: b"(" + b"".join(all_) + b"\x91"),  # a frozenset
        pairs.map(lambda all_: b"}(" + all_ + b"u"),
        pairs.map(lambda all_: b"(" + all_ + b"d"),
        two.map(lambda both: both + b"R"),
        two.map(lambda both: both + b"b"),
        two.map(lambda both: both + b"\x81"),
        two.map(lambda both: both + b"\x93"),
        three.map(lambda all_: all_ + b"\x92"),
        few.map(lambda all_: b"(" + b"".join(all_) + b"o"),
        few.map(lambda all_: b"(" + b"".join(all_) + b"ios\nsystem\n"),
        inner.map(lambda one: one + b"Q"),  # a persistent id
        inner.map(lambda one: one + b"2\x86"),
        st.tuples(inner, st.integers(0, 6)).map(lambda both: both[0] + b"q" + bytes([both[1]])),
        inner.map(lambda one: one + b"\x94"),
        inner.map(lambda one: one + b"r\xff\xff\xff\x7f"),
    )


VALUES = st.recursive(_LEAVES, _larger, max_leaves=12)
_MARKS = (
    b"R", b"b", b"\x81", b"\x93", b"\x85", b"\x86", b"\x87", b"t", b"(", b"s", b"u", b"a", b"e",
    b"0", b"1", b"2", b"\x90", b"\x91", b"Q", b"\x94", b"q\x00", b"h\x00", b".", b"\x80\x04",
    b"\x80\xff", b"\x98",
)  # fmt: skip
PIECES = _LEAVES | st.sampled_from(_MARKS) | VALUES
PROGRAMS = st.builds(program, VALUES, st.integers(0, 6))


def doubled(levels: int, pair: bytes, leaf: bytes) -> bytes:
    """Instructions of a value that holds another one twice, and so on, so many levels deep."""
    values = leaf
    for level in range(levels):
        place = bytes([level])
        values += b"q" + place + b"h" + place + pair
    return values
