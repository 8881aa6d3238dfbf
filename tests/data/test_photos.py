"""Images as they are given: files, folders, patterns, and images in memory."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data.photos import photos

from folders import picture, pictures


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", a=2, b=1)
    picture(tmp_path / "in" / ".hidden" / "c.png")
    (tmp_path / "in" / "notes.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "heic").mkdir()
    (tmp_path / "heic" / "IMG_1.HEIC").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("in", ["in/a/0.png", "in/a/1.png", "in/b/0.png"]),
        (Path("in/a/1.png"), ["in/a/1.png"]),
        (["in/b", "in/a/0.png", "in/b/0.png"], ["in/b/0.png", "in/a/0.png", "in/b/0.png"]),
        ("in/*/0.png", ["in/a/0.png", "in/b/0.png"]),
        ("in/[ab]", ["in/a/0.png", "in/a/1.png", "in/b/0.png"]),
        ("in/notes.txt", ["in/notes.txt"]),  # to be named when it is read
        ("nowhere.png", ["nowhere.png"]),
        ("x" * 300, ["x" * 300]),
    ],
)
def test_files_folders_and_patterns(given, names, place):
    assert list(photos(given).names) == names


def test_a_name_that_looks_like_a_pattern_is_a_file(place):
    picture(place / "a[1].png")
    assert photos("a[1].png").names == ("a[1].png",)


def test_images_in_memory_are_numbered(place):
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    array = np.full((4, 4, 3), 7, np.uint8)
    found = photos(["in/b", image, array, Path("in/b/0.png").read_bytes()])
    assert found.names == ("in/b/0.png", "image 1", "image 2", "image 3")
    assert found.image(1, 3).getpixel((0, 0)) == (1, 2, 3)
    assert found.image(2, 3).getpixel((0, 0)) == (7, 7, 7)
    assert found.image(3, 3).tobytes() == found.image(0, 3).tobytes()
    assert photos(np.stack([array, array])).names == ("image 0", "image 1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("empty", "empty: no images in it. Images are AVIF, BMP"),
        ("heic", "heic: no images in it; it has files of .heic. Images are"),
        ("in/*.gif", "in/*.gif: no file matches this pattern"),
        ([], "no images given; expected files, folders or patterns"),
    ],
)
def test_nothing_is_a_sentence(given, message, place):
    with pytest.raises(nfspec.InputError) as error:
        photos(given)
    assert str(error.value).startswith(message)


def test_an_image_in_memory_is_used_by_one_thread_at_a_time():
    """It may be there twice, and PIL decodes it when it is used first."""
    image, entered = Image.new("RGB", (8, 8)), threading.Event()
    source = photos([image, image])

    def enter():
        with source.opened(1):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    with source.opened(0):
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(60)


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is open to root")
def test_what_cannot_be_looked_at_is_named_later(place):
    (place / "in").chmod(0)
    try:
        assert photos("in/a/0.png").names == ("in/a/0.png",)
    finally:
        (place / "in").chmod(0o755)
