"""Facts of a compiled program, read from its text as XLA prints it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
CHANNEL = re.compile(r"channel_id=(\d+)")
# In StableHLO:
ROOT = re.compile(r"stablehlo\.r?sqrt %\S+ : tensor<(?:\d+x)*(?:bf16|f16)>")
SUM = re.compile(
    r"stablehlo\.reduce\(.*applies stablehlo\.add across dimensions = \[(?P<axes>[\d, ]+)\]"
    r" : \(tensor<(?P<shape>[\dx]+)x(?:bf16|f16)>.*-> tensor<(?:\d+x)*(?:bf16|f16)>"
)
WIDE_CONV = re.compile(r"stablehlo\.convolution\(.*->\[b, 0, 1, f\].*-> tensor<[\dx]*f32>")
SCALARS = 1024  # bytes of the loss and of what is counted, which devices exchange, too
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
    yield from filter(None, map(_instruction, text.splitlines()))


def _instruction(line: str) -> tuple[str, str] | None:
    if (match := INSTRUCTION.match(line)) and not match["kind"].endswith("-done"):
        return match["kind"].removesuffix("-start"), match["type"]
    return None


def collectives(text: str) -> list[Collective]:
    """The exchanges between devices, in the program's order.

    TPUs run an exchange beside other operations as several fusions, each with a copy of it, which
    has the number of its channel.
    """
    found: list[Collective] = []
    copies: set[tuple[Any, ...]] = set()
    computation = ""
    for line in text.splitlines():
        if opened := COMPUTATION.match(line):
            computation = opened[1]
        elif (one := _instruction(line)) and one[0] in COLLECTIVES:
            kind, arrays = one[0], ARRAY.findall(one[1])
            channel = CHANNEL.search(line)
            if channel and "fus" in computation:
                copy = (channel[1], kind, *arrays)
                if copy in copies:
                    continue
                copies.add(copy)
            dtypes = tuple(dict.fromkeys(dtype for dtype, _ in arrays))
            found.append(Collective(kind, sum(map(_bytes, arrays)), dtypes))
    return found


def forbidden(text: str) -> list[str]:
    """Find what no program of a network may have; returns a sentence for each kind.

    Args:
        text: The compiled program, as XLA prints it.
    """
    sentences = []
    kinds = [kind for kind, _ in instructions(text)]
    if re.search(r"\bf64\[", text):
        sentences.append("float64: the program has arrays of it, which accelerators lack")
    calls = sorted({*(k for k in kinds if k in HOST), *CALLBACK.findall(text)})
    if calls:
        sentences.append(f"host: the program waits for the host ({', '.join(calls)})")
    return sentences


def narrow(asked: str) -> list[str]:
    """Find statistics, norms and sums in 16 bits; returns a sentence for each kind.

    Roots are those of statistics of kernels and of norms; sums are over images, kernels or classes.

    Args:
        asked: The program that the compiler is given, as StableHLO.
    """
    roots, sums = len(ROOT.findall(asked)), sum(map(_several, SUM.finditer(asked)))
    sentences = []
    if roots:
        sentences.append(f"statistics: {roots} roots of variances or norms are taken in 16 bits")
    if sums:
        sentences.append(f"sums: {sums} sums over an array are in 16 bits")
    return sentences


def wide(asked: str) -> list[str]:
    """Find convs that make images of float32; returns a sentence where there are some.

    Those that make the gradient of a kernel are in float32 on purpose: their factors are numbers of
    16 bits, and their sums are added up over devices.

    Args:
        asked: A program that was to be in bfloat16, as StableHLO.
    """
    count = len(WIDE_CONV.findall(asked))
    if not count:
        return []
    return [f"products: {count} convs make images of float32, not of bfloat16"]


def exchanged(text: str, summed: int, gathered: int = 0, devices: int = 1) -> list[str]:
    """Find what devices should not exchange; returns a sentence for each kind.

    They add up each gradient as often as it is computed, in float32. Kernels in parts are gathered,
    and each device may keep its part of a sum.

    Args:
        text: A compiled step of training on several devices, as XLA prints it.
        summed: Most bytes that are added up: all gradients in float32, and those of SAM's ascent.
        gathered: Most bytes of kernels that a device gathers; 0 where it has them whole.
        devices: Number of devices.
    """
    found = collectives(text)
    sums = [c for c in found if c.kind in ("all-reduce", "reduce-scatter")]
    narrow = sum(c.bytes for c in sums if {"bf16", "f16"} & {*c.dtypes})
    total = sum(c.bytes * (devices if c.kind == "reduce-scatter" else 1) for c in sums)
    others = [c for c in found if c not in sums]
    kernels = [c for c in others if c.kind == "all-gather"]
    if sum(c.bytes for c in kernels) <= gathered:
        others = [c for c in others if c not in kernels]
    size = sum(c.bytes for c in others)
    sentences = []
    if narrow:
        sentences.append(
            f"sums: {narrow / 1e6:.1f} MB are added up over devices in 16 bits; gradients have "
            "to be added up in float32, before they are clipped"
        )
    if total > summed + SCALARS:
        sentences.append(
            f"sums: {total / 1e6:.1f} MB are added up over devices, where all gradients are "
            f"{summed / 1e6:.1f} MB: some are added up more than once"
        )
    if size > SCALARS:
        kinds = ", ".join(sorted({c.kind for c in others}))
        sentences.append(
            f"images: devices exchange {size / 1e6:.1f} MB that are no sums and no kernels in "
            f"parts ({kinds}), where each has its own images"
        )
    return sentences


def _several(found: re.Match[str]) -> bool:
    """True if a sum has more than one term."""
    shape = found["shape"].split("x")
    return any(shape[int(axis)] != "1" for axis in found["axes"].split(","))


def copied(donated: int, state: int) -> list[str]:
    """Find a step that does not write its state in place; returns a sentence where it does not.

    Args:
        donated: Bytes of arguments whose memory the results take.
        state: Bytes of parameters, of the optimizer's buffers and averages.
    """
    if donated >= state:
        return []
    return [
        f"memory: {donated / 1e6:.1f} MB are written in the place of their old values, of "
        f"{state / 1e6:.1f} MB that a step changes"
    ]


def _bytes(array: tuple[str, str]) -> int:
    dtype, sides = array
    bits = 8 if dtype == "pred" else int(BITS.match(dtype)[1])  # type: ignore[index]
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8
