"""The blocks of docs/photos.md, in the order in which a reader meets them, in one process."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

TEXT = (Path(__file__).parent.parent / "docs" / "photos.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
RUN = """
import importlib, os, shlex
os.environ.pop("KERAS_BACKEND", None)
from typer.testing import CliRunner
from nfspec.cli import app
names = {}
for language, text in BLOCKS:
    if language == "python":
        # Keras looks for TensorFlow's types in all that it saves: it is as where there is none.
        importlib.import_module("keras.src.utils.module_utils").tensorflow._available = False
        exec(compile(text, "docs/photos.md", "exec"), names)
        continue
    for line in text.splitlines():
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        print(done.stdout)
"""


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
    short = [
        (language, text.replace("--epochs 20", "--epochs 1").replace("--size 64", "--size 32"))
        for language, text in BLOCKS
    ]
    assert short != BLOCKS
    program = f"BLOCKS = {short!r}\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^new/\d\.(?:jpg|png) (?:temple|flower) \d+\.\d%$", done.stdout, re.M)
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
