"""Safetensors files and zip archives, put together of parts that need not fit."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzing.mutation import by_bytes, by_pieces
from fuzzing.texts import JSON_PIECES, tokens

_TENSORS = (
    '"F32"', '"F64"', '"BF16"', '"F16"', '"I64"', '"U8"', '"BOOL"', '"F8_E4M3"', '"F4"', '"C64"',
    '"Q4"', '"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"head.fc.bias"', "[0,0]",
    "[0,4]", "[4,0]", "[0,1000000000000]", "[0,18446744073709551615]", "[4294967296,4294967296]",
    "[0]", '"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},', '"format"', '"position"',
    '"checksum"',
)  # fmt: skip
PIECES = st.sampled_from([word.encode() for word in _TENSORS]) | JSON_PIECES


def safetensors(header: Any, data: bytes) -> bytes:
    """A file of a header, given as what JSON holds or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def opened(file: bytes) -> tuple[bytes, bytes]:
    """Header and data of a valid file."""
    size = struct.unpack_from("<Q", file)[0]
    return file[8 : 8 + size], file[8 + size :]


def spoilt_safetensors(seeds: Sequence[bytes]) -> SearchStrategy[bytes]:
    """Files with another header, of a length that fits, and files with other bytes."""

    def joined(pieces: Sequence[bytes]) -> bytes:
        return safetensors(b"".join(pieces[:-1]), pieces[-1])

    parts = [opened(seed) for seed in seeds]
    headers = by_pieces([[*tokens(header), data] for header, data in parts], PIECES, joined)
    return headers | by_bytes(seeds)


def members(file: bytes) -> dict[str, bytes]:
    """The contents of a valid zip archive."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(
    content: Mapping[str, bytes] | Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip archive; names may come twice."""
    buffer = io.BytesIO()
    pairs = content.items() if isinstance(content, Mapping) else content
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in pairs:
            archive.writestr(name, data)
    return buffer.getvalue()


def spoilt_zips(
    valid: Mapping[str, bytes], name: str, others: SearchStrategy[bytes]
) -> SearchStrategy[bytes]:
    """Archives in which one member is another one, and in which members are missing or moved.

    Args:
        valid: Content of a valid archive, by name.
        name: The member that is exchanged.
        others: Draws the content that takes its place.
    """
    methods = st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))

    def exchanged(data: bytes, method: int) -> bytes:
        return zipped({**valid, name: data}, method)

    names = (*valid, "x", "../x", "/x", "a/b/data.pkl", "\x1b[2J", "data.pkl", "constants.pkl")
    bodies = (*valid.values(), b"", b"3\n", bytes(20))

    def other(places: Sequence[tuple[int, int]], method: int, whole: bool) -> bytes:
        entries = [(names[n], bodies[m]) for n, m in places]
        return zipped([*(valid.items() if whole else ()), *entries], method)

    places = st.tuples(st.integers(0, len(names) - 1), st.integers(0, len(bodies) - 1))
    return (
        st.builds(exchanged, others, methods)
        | st.builds(other, st.lists(places, max_size=len(valid)), methods, st.booleans())
        | by_bytes([zipped(valid)])
    )
