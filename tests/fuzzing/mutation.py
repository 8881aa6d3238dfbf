"""Ways to spoil a file: byte by byte, and piece by piece."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

LONGEST = 65_536  # of what comes out; what is hostile by its length is a seed
NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
FORMS = ("<B", ">H", "<H", ">I", "<I", ">Q", "<Q")

Edit = tuple[str, int, int, bytes]


def _words() -> list[bytes]:
    found = {
        struct.pack(form, n % 2 ** (8 * struct.calcsize(form))) for form in FORMS for n in NUMBERS
    }
    return sorted(found)


_EDITS: SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(("set", "set", "set", "insert", "delete", "copy", "cut", "flip")),
        st.integers(0, LONGEST),
        st.integers(0, 64),
        st.sampled_from(_words()) | st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=5,
)


def _edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    found = bytearray(data)
    for kind, place, size, word in edits:
        at = place % (len(found) + 1)
        if kind == "set":
            found[at : at + len(word)] = word
        elif kind == "insert":
            found[at:at] = word
        elif kind == "delete":
            del found[at : at + size]
        elif kind == "copy":
            found[at:at] = found[at : at + size] * 2
        elif kind == "cut":
            del found[at:]
        elif at < len(found):
            found[at] ^= 1 << size % 8
    return bytes(found[:LONGEST])


def by_bytes(seeds: Sequence[bytes]) -> SearchStrategy[bytes]:
    """Files with some of their bytes changed."""
    number = st.integers(0, len(seeds) - 1)  # Hypothesis writes down what it draws from
    return st.builds(lambda n, edits: _edited(seeds[n], edits), number, _EDITS)


def by_pieces(
    seeds: Sequence[Sequence[bytes]],
    strange: SearchStrategy[bytes],
    joined: Callable[[Sequence[bytes]], bytes] = b"".join,
) -> SearchStrategy[bytes]:
    """Files with some of their pieces (tokens, instructions, chunks) left out, doubled, exchanged.

    Args:
        seeds: Files as their pieces.
        strange: Pieces to put in.
        joined: A file of pieces.
    """
    change = st.tuples(
        st.sampled_from(
            ("replace", "replace", "insert", "delete", "double", "swap", "move", "cut")
        ),
        st.integers(0, 1 << 16),
        st.integers(0, 1 << 16),
        strange,
    )

    def changed(number: int, changes: Sequence[Edit]) -> bytes:
        found = list(seeds[number])
        for kind, first, second, piece in changes:
            if not found:
                found = [piece]
            one, other = first % len(found), second % len(found)
            if kind == "replace":
                found[one] = piece
            elif kind == "insert":
                found.insert(one, piece)
            elif kind == "delete":
                del found[one]
            elif kind == "double":
                found.insert(other, found[one])
            elif kind == "swap":
                found[one], found[other] = found[other], found[one]
            elif kind == "move":
                found[one:one] = found[other : other + 8]
            else:
                del found[max(1, one) :]
        return joined(found or [b""])[: 4 * LONGEST]

    edits = st.lists(change, min_size=1, max_size=6)
    return st.builds(changed, st.integers(0, len(seeds) - 1), edits)
