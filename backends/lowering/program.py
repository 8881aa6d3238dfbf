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
# In StableHLO:
ROOT = re.compile(r"stablehlo\.r?sqrt %\S+ : tensor<(?:\d+x)*(?:bf16|f16)>")
SUM = re.compile(
    r"stablehlo\.reduce\(.*applies stablehlo\.add across dimensions = \[(?P<axes>[\d, ]+)\]"
    r" : \(tensor<(?P<shape>[\dx]+)x(?:bf16|f16)>.*-> tensor<(?:\d+x)*(?:bf16|f16)>"
)
WIDE_CONV = re.compile(r"stablehlo\.convolution\(.*->\[b, 0, 1, f\].*-> tensor<[\dx]*f32>")
SCALARS = 1024  # bytes of the loss and of what is counted, which are added up over devices, too
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


def exchanged(text: str, gradients: int, split: bool = False) -> list[str]:
    """Find what devices should not exchange; returns a sentence for each kind.

    They add up each gradient as often as it is computed, in float32. Where parameters are split,
    parts of them are exchanged, too.

    Args:
        text: A compiled step of training on several devices, as XLA prints it.
        gradients: Bytes of all gradients in float32, those of SAM's ascent counted, too.
        split: True if parameters are split over the devices.
    """
    found = collectives(text)
    sums = [c for c in found if c.kind in ("all-reduce", "reduce-scatter")]
    narrow = sum(c.bytes for c in sums if {"bf16", "f16"} & {*c.dtypes})
    total = sum(c.bytes for c in sums)
    others = [] if split else [c for c in found if c not in sums]
    sentences = []
    if narrow:
        sentences.append(
            f"sums: {narrow / 1e6:.1f} MB are added up over devices in 16 bits; gradients have "
            "to be added up in float32, before they are clipped"
        )
    if total > gradients + SCALARS:
        sentences.append(
            f"sums: {total / 1e6:.1f} MB are added up over devices, where all gradients are "
            f"{gradients / 1e6:.1f} MB: some are added up more than once"
        )
    if others:
        kinds = ", ".join(sorted({c.kind for c in others}))
        size = sum(c.bytes for c in others) / 1e6
        sentences.append(
            f"images: devices exchange {size:.1f} MB that are no sums ({kinds}), where each has "
            "its own images and all parameters"
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


def _dtypes(shape: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dtype for dtype, _ in ARRAY.findall(shape)))


def _bytes(array: tuple[str, str]) -> int:
    dtype, sides = array
    bits = 8 if dtype == "pred" else int(BITS.match(dtype)[1])  # type: ignore[index]
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8
