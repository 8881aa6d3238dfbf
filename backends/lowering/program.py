"""Facts of a compiled program, read from its text as XLA prints it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
HOST = ("infeed", "outfeed", "send", "recv")
CALLBACK = re.compile(r'custom_call_target="([^"]*(?:callback|host)[^"]*)"', re.IGNORECASE)
BITS = re.compile(r"[a-z]+(\d+)")
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?[\w.\-]+ = (?P<type>\(.*?\)|\S+) (?P<kind>[a-z][a-z0-9\-]*)\("
)
ARRAY = re.compile(r"\b(pred|bf16|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One operation in which devices exchange data.

    Attributes:
        kind: One of `COLLECTIVES`.
        bytes: Size of its results on one device.
        dtypes: Types of its results, each once.
    """

    kind: str
    bytes: int
    dtypes: tuple[str, ...]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The kind and the type of each instruction; a start stands for itself and its end."""
    for line in text.splitlines():
        if (match := INSTRUCTION.match(line)) and not match["kind"].endswith("-done"):
            yield match["kind"].removesuffix("-start"), match["type"]


def collectives(text: str) -> list[Collective]:
    """The exchanges between devices, in the program's order."""
    return [
        Collective(kind, sum(map(_bytes, ARRAY.findall(shape))), _dtypes(shape))
        for kind, shape in instructions(text)
        if kind in COLLECTIVES
    ]


def faults(text: str, several: bool) -> list[str]:
    """Find what a program of a network must not have; returns a sentence for each kind.

    Args:
        text: The compiled program, as XLA prints it.
        several: True for a step of training on several devices.
    """
    sentences = []
    kinds = [kind for kind, _ in instructions(text)]
    if re.search(r"\bf64\[", text):
        sentences.append("float64: the program has arrays of it, which accelerators lack")
    calls = sorted({*(k for k in kinds if k in HOST), *CALLBACK.findall(text)})
    if calls:
        sentences.append(f"host: the program waits for the host ({', '.join(calls)})")
    narrow = [c for c in collectives(text) if {"bf16", "f16"} & {*c.dtypes}]
    sums = [c for c in narrow if c.kind in ("all-reduce", "reduce-scatter")]
    if several and sums:
        mega = sum(c.bytes for c in sums) / 1e6
        sentences.append(
            f"sums: {mega:.1f} MB of gradients are added up over devices in 16 bits, before "
            "they are clipped"
        )
    return sentences


def _dtypes(shape: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dtype for dtype, _ in ARRAY.findall(shape)))


def _bytes(array: tuple[str, str]) -> int:
    dtype, sides = array
    bits = 8 if dtype == "pred" else int(BITS.match(dtype)[1])  # type: ignore[index]
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8
