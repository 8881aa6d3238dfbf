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
    edited = {
        struct.pack(form, n % 2 ** (8 * struct.calcsize(form))) for form in FORMS for n in NUMBERS
    }
    return sorted(edited)


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
    edited = bytearray(data)
    for kind, place, size, word in edits:
        at = place % (len(edited) + 1)
        if kind == "set":
            edited[at : at + len(word)] = word
        elif kind == "insert":
            edited[at:at] = word
        elif kind == "delete":
            del edited[at : at + size]
        elif kind == "copy":
            edited[at:at] = edited[at : at + size] * 2
        elif kind == "cut":
            del edited[at:]
        elif at < len(edited):
            edited[at] ^= 1 << size % 8
    return bytes(edited[:LONGEST])


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
        edited = list(seeds[number])
        for kind, first, second, piece in changes:
            if not edited:
                edited = [piece]
            one, other = first % len(edited), second % len(edited)
            if kind == "replace":
                edited[one] = piece
            elif kind == "insert":
                edited.insert(one, piece)
            elif kind == "delete":
                del edited[one]
            elif kind == "double":
                edited.insert(other, edited[one])
            elif kind == "swap":
                edited[one], edited[other] = edited[other], edited[one]
            elif kind == "move":
                edited[one:one] = edited[other : other + 8]
            else:
                del edited[max(1, one) :]
        return joined(edited or [b""])[: 4 * LONGEST]

    edits = st.lists(change, min_size=1, max_size=6)
    return st.builds(changed, st.integers(0, len(seeds) - 1), edits)
