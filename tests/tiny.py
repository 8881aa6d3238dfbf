"""A network that trains in seconds, every kind of drop and mix on, and images to train it on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from nfspec.weights.store import read_all

SPEC = """\
schema = "nfspec/1"
name = "tiny"
source = "a test"
extends = "nfnet-nano"
[input]
train = 16
test = 16
[stem]
width = [8]
kernel = 3
stride = [2]
[block]
convs = 1
[stages]
depth = [1, 1]
width = [16, 32]
stride = [1, 2]
group_width = 8
attention = "none"
[stochastic_depth]
rate = 0.25             # of the second block alone; the first is never dropped
[head]
conv = "none"
dropout = 0.2
classes = 3
[recipe]
learning_rate = 0.2
learning_rate_images = 0
batch = 8
epochs = 4
images = 24
warmup_epochs = 1
ema_decay = 0.9
crop_area = 0.6
flip = true
mixup_alpha = 0.2
cutmix_alpha = 1.0
randaugment_layers = 2
randaugment_magnitude = 3
"""
STILL = SPEC.replace("rate = 0.25", "rate = 0.0").replace("dropout = 0.2", "dropout = 0.0")
CLASSES = ("blue", "green", "red")
STEPS = 12  # of a whole training
FILES = {  # of a whole training
    "spec.toml",
    "run.json",
    "log.jsonl",
    "training.png",
    "weights.safetensors",
    "best.safetensors",
    "checkpoints",
}
EACH = 10  # images of a class, of which training holds out a fifth


def pictures():
    """For each class so many noisy images in its colour, (20, 24, 3)."""
    rng = np.random.default_rng(0)
    images = {}
    for channel, name in zip((2, 1, 0), CLASSES, strict=True):
        images[name] = rng.integers(0, 120, (EACH, 20, 24, 3), dtype=np.uint8)
        images[name][..., channel] += 120
    return images


def write_images(root):
    """The pictures as CLASS/NUMBER.png; returns the folder."""
    for name, images in pictures().items():
        (root / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.png")
    return root


def write_spec(folder, text=SPEC):
    """The spec's file."""
    path = Path(folder, "tiny.toml")
    path.write_text(text)
    return path


def checkpoints(folder):
    """Steps of a training's checkpoints."""
    paths = (folder / "checkpoints").glob("step-*.safetensors")
    return sorted(int(path.stem.removeprefix("step-")) for path in paths)


def snapshot(folder):
    """Every file below a folder, and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def log_of(folder):
    """A training's log but for its times."""
    lines = Path(folder, "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [{k: v for k, v in e.items() if k != "images_per_second"} for e in entries]


def assert_same_bits(folder, whole, step):
    """Two trainings ended in the same weights, best weights, checkpoint of a step, and log."""
    for file in ("weights", "best", f"checkpoints/step-{step:08d}"):
        (arrays, facts), (expected, others) = (
            read_all(each / f"{file}.safetensors") for each in (folder, whole)
        )
        assert facts == others, file
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert arrays[name].tobytes() == array.tobytes(), f"{file}: {name}"
    assert log_of(folder) == log_of(whole)
