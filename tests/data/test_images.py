"""Image files as inputs."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data import images
from nfspec.data.images import FORMATS, cause, fit, prepare, sample_photo
from nfspec.language.graph import Input

PLAIN = Input(
    channels=3,
    train=32,
    test=32,
    mean=(0.5, 0.25, 0.0),
    std=(0.5, 0.25, 2.0),
    resize="center",
    margin=0,
    crop=1.0,
)


def saved(tmp_path, pixels, mode="RGB"):
    path = tmp_path / "image.png"
    Image.fromarray(np.asarray(pixels, np.uint8), mode=None).convert(mode).save(path)
    return path


def test_pixels_are_normalised_channel_by_channel(tmp_path):
    path = saved(tmp_path, np.full((32, 32, 3), 255))
    actual = prepare(path, PLAIN, 32)
    assert actual.shape == (1, 32, 32, 3)
    assert actual.dtype == np.float32
    assert np.unique(actual.reshape(-1, 3), axis=0).tolist() == [[1.0, 3.0, 0.5]]


def test_center_keeps_the_middle_and_squash_keeps_everything(tmp_path):
    pixels = np.zeros((32, 96, 3))
    pixels[:, 32:64] = 255  # the middle third is white
    path = saved(tmp_path, pixels)
    how = PLAIN.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})
    assert (prepare(path, how, 32) == 1.0).all()
    squashed = prepare(path, how.model_copy(update={"resize": "squash"}), 32)
    assert squashed.mean() == pytest.approx(1 / 3, abs=0.02)  # two pixels of 32 at each edge blur
    assert (squashed[0, :, [0, -1]] == 0.0).all()


@pytest.mark.parametrize("changes", [{"margin": 32}, {"crop": 0.5}])
def test_margin_and_crop_cut_off_the_border(tmp_path, changes):
    pixels = np.full((64, 64, 3), 255)
    pixels[16:48, 16:48] = 0
    path = saved(tmp_path, pixels)
    how = PLAIN.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3, **changes})
    assert not prepare(path, how, 32).any()


def test_one_channel(tmp_path):
    path = saved(tmp_path, np.full((40, 40, 3), 51))
    how = PLAIN.model_copy(update={"channels": 1, "mean": (0.0,), "std": (1.0,)})
    actual = prepare(path, how, 32)
    assert actual.shape == (1, 32, 32, 1)
    assert actual == pytest.approx(0.2)


def test_the_sample_photo_is_a_photo():
    actual = prepare(sample_photo(), nfspec.load("nfnet-f0").input, 64)
    assert 0.5 < actual.std() < 2.0


def test_what_is_not_an_image_is_refused(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    for path in (text, tmp_path / "missing.png", tmp_path):
        with pytest.raises(nfspec.InputError, match=r"not an image that can be read"):
            prepare(path, PLAIN, 32)
    how = PLAIN.model_copy(update={"channels": 4})
    with pytest.raises(
        nfspec.InputError, match="image files have 1 or 3 channels, the network takes 4"
    ):
        prepare(text, how, 32)


def test_a_format_that_runs_a_program_is_no_image_whatever_its_name(tmp_path, monkeypatch):
    """Pillow runs Ghostscript for EPS."""
    ran = tmp_path / "ran"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho > {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "photo.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(nfspec.InputError, match="not an image that can be read"):
        prepare(path, PLAIN, 16)
    assert not ran.exists()


def test_an_image_that_is_no_file_is_not_waited_for(tmp_path):
    path = tmp_path / "photo.png"
    os.mkfifo(path)
    with pytest.raises(nfspec.InputError, match="a named pipe"):
        prepare(path, PLAIN, 16)


def test_a_thin_image_is_refused_before_it_is_scaled(tmp_path):
    path = tmp_path / "thin.png"
    Image.new("RGB", (1, 200_000)).save(path)
    with pytest.raises(
        nfspec.InputError, match="1 x 200000 px: one side is over 100 times the other"
    ):
        prepare(path, PLAIN, 16)


def test_bits_that_would_be_lost_are_refused(tmp_path):
    """12 bits of data in a PNG of 16 would all be the same byte."""
    path = tmp_path / "deep.png"
    for levels in (np.full((8, 8), 100), np.arange(64).reshape(8, 8) + 100):
        Image.fromarray(levels.astype(np.uint16)).save(path)
        with pytest.raises(nfspec.InputError, match="more than 8 bits a channel"):
            prepare(path, PLAIN, 16)
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(nfspec.InputError, match="more than 8 bits a channel"):
        prepare(tmp_path / "deep.tiff", PLAIN, 16)


def test_sixteen_bits_of_colour_are_refused(tmp_path):
    """Pillow drops the lower byte without a word."""
    rows = b"".join(b"\0" + struct.pack(">6H", 100, 101, 102, 197, 198, 199) for _ in range(2))

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    path = tmp_path / "deep.png"
    header = struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(nfspec.InputError, match="more than 8 bits a channel"):
        prepare(path, PLAIN, 16)


def test_a_pixmap_of_more_than_eight_bits_is_refused(tmp_path):
    path = tmp_path / "deep.ppm"
    path.write_bytes(b"P6 2 2 4095\n" + struct.pack(">12H", *range(100, 112)))
    with pytest.raises(nfspec.InputError, match="more than 8 bits a channel"):
        prepare(path, PLAIN, 16)
    path.write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    assert prepare(path, PLAIN, 16).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_eight_bits_are_read_in_every_format(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image", kind)
    assert prepare(tmp_path / "image", PLAIN, 16).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("size", "shape", "changes"),
    [
        (1024, (5, 500), {}),  # 1024 x 102,400 px if scaled as a whole: 400 MB
        (4096, (4, 400), {}),
        (256, (40, 30), {"crop": 0.01}),
        (256, (40, 30), {"crop": 0.01, "resize": "squash"}),
    ],
)
def test_no_more_is_scaled_than_is_kept(monkeypatch, size, shape, changes):
    how = PLAIN.model_copy(update=changes)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    made = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, to, *rest: made.append(to) or resize(self, to, *rest)
    )
    assert fit(Image.fromarray(pixels), how, size).size == (size, size)
    assert made == [(size, size)]


@pytest.mark.parametrize("changes", [{}, {"crop": 0.5}, {"margin": 32}, {"resize": "squash"}])
@pytest.mark.parametrize("shape", [(60, 47), (40, 120)])
def test_the_centre_alone_is_the_centre_of_the_whole(monkeypatch, shape, changes):
    """But for rounding. A pass rounds by half a level, which the absolute weights of the next one,
    1.25 in all for bicubic, carry on: 1.125 for each of the two ways, so 2 whole levels. Nothing is
    cut off at 0 or 255 here, which would depend on the order of the passes."""
    how = PLAIN.model_copy(update=changes)
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(64, 192, (6, 6, 3), dtype=np.uint8))
    image = smooth.resize(shape, Image.Resampling.BICUBIC)
    whole = np.asarray(fit(image, how, 64), int)
    monkeypatch.setattr(images, "MAX_PIXELS", 0)
    assert abs(np.asarray(fit(image, how, 64), int) - whole).max() <= 2


def test_a_reason_is_words(tmp_path):
    """Neither nothing nor an object of Python's."""
    assert cause(MemoryError()) == "it needs more memory than is free"
    assert cause(SyntaxError()) == "damaged: SyntaxError"
    assert cause(OSError("broken\n\x1b[31m")) == r"broken \x1b[31m"
    path = tmp_path / "text.png"
    path.write_text("not an image")
    with pytest.raises(nfspec.InputError) as error:
        prepare(path, PLAIN, 32)
    known = ", ".join(FORMATS)
    assert str(error.value) == f"{path}: not an image that can be read (none of {known})"


def test_an_image_of_a_hundred_megapixels_is_opened_without_a_warning(tmp_path):
    """Pillow would print one; here warnings are errors."""
    chunks = (
        b"IHDR" + struct.pack(">2I5B", 10_000, 10_000, 1, 0, 0, 0, 0),
        b"IDAT" + zlib.compress(b""),
    )
    path = tmp_path / "large.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in chunks
        )
    )
    images._quiet.cache_clear()  # pytest forgets filters of warnings after each test
    with images.opened_image(path) as image:
        assert image.size == (10_000, 10_000)


def test_damaged_tiffs_print_nothing(tmp_path):
    """libtiff would print lines of its own to file descriptor 2."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression="tiff_lzw")
    for n in range(8):
        data = bytearray(file.getvalue())
        for place in np.random.default_rng(n).integers(8, len(data), 6):
            data[place] ^= 255
        (tmp_path / f"{n}.tif").write_bytes(data)
    code = """
import sys
from pathlib import Path
from nfspec.data.images import UNREADABLE, opened_image
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        with opened_image(path) as image:
            image.load()
    except UNREADABLE:
        pass
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
