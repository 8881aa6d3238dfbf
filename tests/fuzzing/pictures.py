"""Readers of images: `--image`, and those of a folder to train on."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import ExifTags, Image

import nfspec
from nfspec.data.batches import Examples
from nfspec.data.images import prepare
from nfspec.data.sources import folder
from nfspec.errors import InputError

from fuzzing import hostile
from fuzzing.mutation import by_bytes, by_pieces
from fuzzing.target import Target, asserted, fault_of_text

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@cache
def _largest() -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (2000, 3000, 3), np.uint8)
    return _saved(Image.fromarray(noise), "PNG", compress_level=1)


def _seeds() -> Iterator[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    image = Image.fromarray(pixels)
    yield from (_saved(image, form) for form in FORMATS)
    yield _saved(image.convert("L"), "PNG")
    yield _saved(image.convert("P"), "PNG")
    yield _saved(image.convert("RGBA"), "PNG")
    yield _saved(image.convert("P"), "GIF")
    yield _saved(image.convert("CMYK"), "JPEG")
    yield _saved(image.convert("1"), "TIFF")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    yield from (_saved(image, form, exif=exif) for form in ("JPEG", "PNG", "TIFF", "WEBP"))


def _chunks(png: bytes) -> list[bytes]:
    """A PNG's chunks, each as its kind and data, without lengths and checksums."""
    parts, at = [], 8
    while at < len(png):
        size = struct.unpack_from(">I", png, at)[0]
        parts.append(png[at + 4 : at + 8 + size])
        at += 12 + size
    return parts


def _png(chunks: Sequence[bytes]) -> bytes:
    """The inverse, so that what is spoilt is not the checksum alone."""
    parts = b"\x89PNG\r\n\x1a\n"
    for chunk in chunks:
        size = struct.pack(">I", max(0, len(chunk) - 4))
        parts += size + chunk + struct.pack(">I", zlib.crc32(chunk))
    return parts


_CHUNKS = st.one_of(
    st.binary(min_size=4, max_size=30),
    st.builds(
        lambda size, depth, kind, more: b"IHDR" + struct.pack(">IIBBBBB", *size, depth, kind,
        *more), st.tuples(*[st.sampled_from((0, 1, 12, 100, 5_000, 60_000, 2**31 - 1))] * 2),
        st.sampled_from((1, 2, 4, 8, 16, 3)),
        st.sampled_from((0, 2, 3, 4, 6, 5)),
        st.tuples(*[st.sampled_from((0, 0, 0, 1, 9))] * 3),
    ),
    st.sampled_from(
        [
            b"tRNS" + bytes(6), b"tRNS", b"PLTE" + bytes(9), b"PLTE", b"gAMA\0\0\0\0", b"IEND",
            b"acTL" + bytes(8), b"fcTL" + bytes(26), b"iCCPx\0\0" + zlib.compress(bytes(2_000_000)),
            b"zTXtx\0\0" + zlib.compress(bytes(2_000_000)),
            b"iTXtx\0\1\0\0\0" + zlib.compress(bytes(2_000_000)),
            b"IDAT" + zlib.compress(bytes(500)), b"IDAT", b"eXIf" + bytes(20),
            b"eXIfMM\0*\0\0\0\x08\xff\xff",
        ]
    ),
)  # fmt: skip
SPEC = nfspec.load("nfnet-nano")
RECIPE = SPEC.recipe
assert RECIPE is not None
SIDE = SPEC.input.train


def _picture(path: Path) -> None:
    parts = prepare(path, SPEC.input, 32)
    asserted(parts.shape == (1, 32, 32, 3) and parts.dtype == np.float32, "not the shape asked for")
    asserted(np.isfinite(parts).all(), "pixels that are no numbers")


def _photo(path: Path) -> None:
    said: list[str] = []
    source = folder(path.parents[1])
    examples = Examples(source, SPEC.input, RECIPE, seed=0, batch=1, count=1, on_bad=said.append)
    try:
        example = examples[0]
    except InputError:
        for text in said:
            if fault := fault_of_text(text):
                raise AssertionError(fault) from None
        raise
    asserted(example.image.shape == (SIDE, SIDE, 3), "not the shape asked for")
    asserted(np.isfinite(example.image).all(), "pixels that are no numbers")


def _target(name: str, file: str, read: Callable[[Path], None]) -> Target:
    seeds = list(_seeds())
    pngs = [_chunks(seed) for seed in seeds if seed.startswith(b"\x89PNG")]
    return Target(
        name,
        file,
        read,
        seeds,
        _largest(),
        hostile.pictures(),
        by_bytes(seeds) | by_pieces(pngs, _CHUNKS, _png),
    )


def image() -> Target:
    """The image of `--image`, whose name says nothing of its kind."""
    return _target("image", "x.jpg", _picture)


def photo() -> Target:
    """An image of a class, as training reads it."""
    return _target("photo", "a/x.png", _photo)
