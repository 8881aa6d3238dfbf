"""docs/lines.md: its table has the lines of its blocks, and the blocks run."""

import os
import re
import subprocess
import sys

import pytest
from pages import ROOT, blocks_of

PAGE = "docs/lines.md"
TORCH = """
import torch
from standin import timm
import timm.models, timm.optim, timm.utils
import nfspec
plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
nfspec.weights.to_timm_file("test_nfnet.safetensors", plan, nfspec.init(plan, seed=0))
data = [(torch.randn(4, 1, 64, 48), torch.randint(10, (4,)))] * 2
"""
LOOP = f"{TORCH}model = nfspec.native(plan, 'torch', classes=10, channels=1)\n"
TIMMS = f"{TORCH}model = timm.create_model('test_nfnet', num_classes=10, in_chans=1)\n"
JAX = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import numpy as np
data = [(np.ones((8, 32, 32, 3), "float32"), np.arange(8))] * 2
"""
FLAX = """
from flax import nnx
import jax
class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.head = nnx.Linear(8, 10, rngs=rngs)
    def __call__(self, x):
        return self.head(jax.nn.relu(self.conv(x)).mean((1, 2)))
"""
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "tensorflow"
import numpy as np
import tensorflow as tf
import keras
import nfspec
pixels = tf.random.normal((16, 32, 32, 3), seed=0)
data = tf.data.Dataset.from_tensor_slices((pixels, tf.range(16) % 5)).batch(8)
plan = nfspec.resolve(nfspec.load("nfnet-nano"))
nfspec.weights.save("nano.safetensors", plan, nfspec.init(plan, seed=0))
small = {"input_shape": (32, 32, 3), "include_top": False, "pooling": "avg", "weights": None}
keras.applications.MobileNetV3Small(**small).save_weights("base.weights.h5")
"""
PHOTOS = """
import os
os.environ["KERAS_BACKEND"] = "tensorflow"
from pathlib import Path
import numpy as np
from PIL import Image
for name, value in (("dark", 30), ("light", 220)):
    Path("photos", name).mkdir(parents=True)
    for n in range(8):
        Image.fromarray(np.full((70, 80, 3), value + n, np.uint8)).save(f"photos/{name}/{n}.jpg")
Path("new").mkdir()
Image.fromarray(np.full((70, 80, 3), 40, np.uint8)).save("new/1.jpg")
"""
# What the programs of a task need, in the order of the page; the commands are those of photos.md.
BEFORE = [PHOTOS, TORCH, TORCH, LOOP, TIMMS, JAX, f"{JAX}{FLAX}", KERAS, KERAS]


def lines_of(block):
    return sum(1 for line in block.splitlines() if line.strip() and not line.startswith("#"))


def test_the_table_has_the_lines_of_the_blocks():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    stated = [int(n) for row in re.findall(r"\| (\d+) \| (\d+) \|", text) for n in row]
    assert stated == [lines_of(block) for _, block in blocks_of(PAGE)]
    assert len(stated) == 10


@pytest.mark.slow
@pytest.mark.parametrize("n", range(len(BEFORE)))
def test_the_programs_run(n, tmp_path):
    programs = [block for language, block in blocks_of(PAGE) if language == "python"]
    assert len(programs) == len(BEFORE)
    program = BEFORE[n] + programs[n].replace("epochs=20", "epochs=1")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
