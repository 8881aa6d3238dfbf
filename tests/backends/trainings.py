"""Small trainings for tests of the loop: made, stopped and compared, on whatever framework.

Everything that draws is on: dropout, stochastic depth, crops, flips, RandAugment, mixup, CutMix.
"""

import contextlib
from functools import cache

import keras
import numpy as np
from PIL import Image

import nfspec
from nfspec.backends.training import checkpoints
from nfspec.backends.training.devices import Devices
from nfspec.backends.training.loop import Settings, Training
from nfspec.data.sources import Source, split
from nfspec.weights.store import read_all

from tiny import CLASSES, EACH, SPEC, STEPS, log_of, pictures, write_spec

PER_EPOCH = 3
STOPPED = 5


@contextlib.contextmanager
def one_thread():
    """On PyTorch one thread alone: threads that wait for each other on busy cores are slow."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Told:
    """A watcher that remembers."""

    def __init__(self):
        self.messages, self.steps, self.evaluations = [], [], []

    def step(self, entry):
        self.steps.append(entry)

    def evaluation(self, entry):
        self.evaluations.append(entry)

    def message(self, text):
        self.messages.append(text)


@cache
def sources():
    """Images to train on, and to hold out, in memory."""
    images = [image for name in CLASSES for image in pictures()[name]]
    labels = np.repeat(np.arange(len(CLASSES)), EACH)
    names = tuple(f"{CLASSES[label]}/{n % EACH}" for n, label in enumerate(labels))
    return split(Source(CLASSES, labels, names, lambda n: Image.fromarray(images[n])), 0.2, 0)


def made(folder, text=SPEC, *, params=None, accumulation=1, source=None, **settings):
    """A training of the tiny network in a folder, as the first one of its process."""
    keras.utils.clear_session(free_memory=False)
    return another(folder, text, params, accumulation, source, settings)


def another(folder, text, params, accumulation, source, settings):
    folder.mkdir(exist_ok=True)
    spec = nfspec.load(write_spec(folder, text))
    plan = nfspec.resolve(spec)
    train, held = sources()
    return Training(
        spec,
        nfspec.recipe(plan, accumulation=accumulation),
        source or train,
        held,
        folder,
        Settings(**{"minutes": 60.0, **settings}),
        Devices(),
        Told(),
        params or nfspec.init(plan, settings.get("seed", 0)),
    )


class Lent:
    """A training that is compiled once, and set back to its start in one folder after another."""

    def __init__(self, start):
        self.start, self.training = start, made(start)
        network, optimizer = self.training.network, self.training.optimizer
        position = checkpoints.Position(0)
        checkpoints.save(start, network, optimizer, position, self.training.digest)

    def __call__(self, folder, **settings):
        training = self.training
        path = checkpoints.path_of(self.start, 0)
        training.position = checkpoints.restore(
            path, training.network, training.optimizer, training.digest
        )
        training.folder, training.watcher, training.devices = folder, Told(), Devices()
        training.settings = Settings(**{"minutes": 60.0, **settings})
        training.stop = lambda: False
        return training


def stop_after(training, step):
    """Train until a step, and return the folder."""
    training.stop = lambda: training.position.step == step
    assert training.train().step == step
    return training.folder


def same(arrays, expected):
    """Names in which two dicts of arrays are not the same to the bit."""
    assert set(arrays) == set(expected)
    return [
        name
        for name, array in expected.items()
        if (arrays[name].shape, arrays[name].dtype, arrays[name].tobytes())
        != (array.shape, array.dtype, array.tobytes())
    ]


def assert_same_training(folder, whole):
    """All that is written down is the same: parameters, averages, momentum, seeds, log."""
    files = ("weights.safetensors", "best.safetensors", f"checkpoints/step-{STEPS:08d}.safetensors")
    for file in files:
        (arrays, facts), (expected, others) = read_all(folder / file), read_all(whole / file)
        assert same(arrays, expected) == [], file
        assert facts == others
    assert log_of(folder) == log_of(whole)


def bits(folder):
    """Each checkpoint's name, and its bytes."""
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


def assert_frozen(training, start):
    """Parameters that match "stem.*" or "*.gain" have the bits of the start; all others changed."""
    names = [n for n in start if n.startswith("stem.") or n.endswith(".gain")]
    assert 3 < len(names) < len(start)
    for average in (False, True):
        params = nfspec.params_of(training.trainer, average=average)
        assert [name for name in start if name not in same(params, start)] == names
    for file in ("weights.safetensors", "best.safetensors"):
        params, _ = read_all(training.folder / file)
        assert same({n: params[n] for n in names}, {n: start[n] for n in names}) == []
