"""The blocks of docs/photos.md, in the order in which a reader meets them, in one process."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from pages import session
from PIL import Image
from sklearn.datasets import load_sample_image

TEXT = (Path(__file__).parent.parent / "docs" / "photos.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs of two classes, and three new ones."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for name, photo in (("temple", "china.jpg"), ("flower", "flower.jpg")):
        image = Image.fromarray(load_sample_image(photo))
        (folder / "photos" / name).mkdir(parents=True)
        for n in range(8):
            left, top = (int(rng.integers(0, side - 200)) for side in image.size)
            image.crop((left, top, left + 200, top + 200)).save(
                folder / "photos" / name / f"{n}.jpg"
            )
    (folder / "new").mkdir()
    for n, suffix in enumerate((".jpg", ".jpg", ".png")):
        image.crop((50 * n, 0, 50 * n + 300, 250)).save(folder / "new" / f"{n}{suffix}")
    return folder


def test_the_blocks_run(place):
    """With one epoch, and images of a quarter of the pixels."""
    shown = session("docs/photos.md", place, ("--epochs 20", "--epochs 1"), ("size 64", "size 32"))
    told = re.findall(r"^new/\d\.(?:jpg|png) (?:temple|flower) \d+\.\d%$", shown, re.M)
    assert len(told) == 3
    with (place / "answers.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    with Image.open(place / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_the_output_is_of_todays_form():
    shown = re.search(r"^```text\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE).group(1)
    lines = shown.splitlines()
    assert re.fullmatch(r"nfnet-nano at 64 px on torch; names of classes: the training", lines[0])
    assert all(re.fullmatch(r"  [ \d]{3}\.\d\d%  \w+|new/\S+|", line) for line in lines[1:])
