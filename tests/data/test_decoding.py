"""Images of a class folder as they are decoded: damaged files, and every mode of Pillow."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

import nfspec
from nfspec.data.sources import Source, folder


def refusal(source, channels):
    """The message about the first image of a source."""
    with pytest.raises(nfspec.InputError) as error:
        source.image(0, channels)
    return str(error.value)


def grey(path):
    """Write a black image, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


def one(opened, name="an image"):
    return Source(("x",), np.zeros(1, np.int64), (name,), lambda number: opened())


# images that cannot be read


def encoded(kind, size=(24, 24)):
    """Noise as a file of a format, which is long enough to be cut."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side):
    """A PNG of a few bytes that says to have so many pixels each way."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def second_half_broken():
    """A PNG in two parts, the second of which says to be no part of a PNG."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 25), np.uint8)
    pixels[:, 0] = 0  # each row is as it is
    packed = zlib.compress(pixels.tobytes())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 24, 8, 0, 0, 0, 0))
    parts = chunk(b"IDAT", packed[:200]) + chunk(b"\1\2\3\4", packed[200:])
    return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IEND", b"")


BAD = {
    "garbage.png": b"not an image at all",
    "empty.png": b"",
    "zeros.jpg": b"\0" * 4096,
    "cut.png": encoded("PNG")[:900],
    "cut.jpg": encoded("JPEG")[:500],
    "cut.gif": encoded("GIF")[:500],
    "cut.bmp": encoded("BMP")[:500],
    "broken.png": encoded("PNG").replace(b"IDAT", b"IDAX"),
    "half.png": second_half_broken(),
    "bomb.png": bomb(60_000),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_cannot_be_read_is_named(tmp_path, name, channels):
    path = grey(tmp_path / "x" / name)
    path.write_bytes(BAD[name])
    message = refusal(folder(tmp_path), channels)
    assert message.startswith(f"{path}: cannot be read (")


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/1.png").symlink_to("missing.png")
    message = refusal(folder(tmp_path), 3)
    assert message.startswith(f"{tmp_path}/x/1.png: cannot be read (")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_an_image_that_may_not_be_read_is_named(tmp_path):
    path = grey(tmp_path / "x/1.png")
    path.chmod(0)
    assert refusal(folder(tmp_path), 3).startswith(f"{path}: cannot be read (")


FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "TGA", "PPM", "PCX", "ICO", "SGI", "QOI"]
OPTIONAL = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
FORMATS += [name for name, feature in OPTIONAL.items() if features.check(feature)]


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", FORMATS)
def test_files_cut_short_and_files_with_wrong_bytes_are_images_or_errors(kind):
    """Whatever a reader of Pillow's raises."""
    whole, rng = encoded(kind), np.random.default_rng(0)
    variants = [whole[: len(whole) * n // 24] for n in range(24)]
    for _ in range(40):
        data = bytearray(whole)
        # The first bytes say what the file is; with those wrong nobody reads on.
        for place in rng.integers(12, min(len(data), 600), 3):
            data[place] = rng.integers(256)
        variants.append(bytes(data))
    refused = 0
    for data in variants:
        source = one(lambda data=data: Image.open(io.BytesIO(data)), "a file")
        try:
            assert source.image(0, 3).mode == "RGB"
        except nfspec.InputError as error:
            assert str(error).startswith("a file: cannot be read (")
            refused += 1
    assert refused > 0


# modes


def through(tmp_path, image, name="1.png", **how):
    """The first pixel of an image that was a file, as RGB and as grey."""
    (tmp_path / "x").mkdir(exist_ok=True)
    image.save(tmp_path / "x" / name, **how)
    source = folder(tmp_path)
    colour, grey = source.image(0, 3), source.image(0, 1)
    assert (colour.mode, grey.mode) == ("RGB", "L")
    assert colour.size == grey.size == image.size
    return colour.getpixel((0, 0)), grey.getpixel((0, 0))


# ITU-R 601-2 luma of (200, 100, 50): 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124.2
@pytest.mark.parametrize(
    ("mode", "colour", "rgb", "grey"),
    [
        ("RGB", (200, 100, 50), (200, 100, 50), 124),
        ("RGBA", (200, 100, 50, 7), (200, 100, 50), 124),
        ("L", 77, (77, 77, 77), 77),
        ("LA", (77, 3), (77, 77, 77), 77),
        ("1", 1, (255, 255, 255), 255),
    ],
)
def test_every_mode_becomes_colour_or_grey(tmp_path, mode, colour, rgb, grey):
    assert through(tmp_path, Image.new(mode, (5, 4), colour)) == (rgb, grey)


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert through(tmp_path, image) == ((200, 100, 50), 124)


def test_a_palette_with_transparency_becomes_its_colours_without_a_warning(tmp_path):
    """A common kind of PNG."""
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert through(tmp_path, image, transparency=b"\x00\x80") == ((200, 100, 50), 124)


def test_cmyk_becomes_colour(tmp_path):
    image = Image.new("CMYK", (5, 4), (55, 155, 205, 0))
    assert through(tmp_path, image, "1.tif") == ((200, 100, 50), 124)


@pytest.mark.parametrize("name", ["1.png", "1.tif"])
@pytest.mark.parametrize("value", [0, 100, 128, 255])
def test_sixteen_bits_become_the_upper_eight(tmp_path, name, value):
    """257 of 65,535 is 1 of 255."""
    image = Image.fromarray(np.full((4, 5), 257 * value, np.uint16))
    assert image.mode == "I;16"
    assert through(tmp_path, image, name) == ((value,) * 3, value)
