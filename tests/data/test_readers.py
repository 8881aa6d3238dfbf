"""Processes that read images make the batches that threads make, and say what is wrong."""

import os
import pickle
import signal

import numpy as np
import pytest

import nfspec
from nfspec.data import readers
from nfspec.data.batches import Examples, Share, in_threads
from nfspec.data.readers import PIECE, in_processes, made, pieces
from nfspec.data.sources import digits, folder
from nfspec.errors import InputError

from folders import picture

BATCH = 12  # a whole piece and a half


@pytest.fixture
def share(tmp_path):
    """Images of two classes, two of which cannot be read, from the second batch on."""
    for n in range(20):
        picture(tmp_path / f"class{n % 2}" / f"{n}.png", 10 * n)
    for path in ("class0/4.png", "class1/7.png"):
        (tmp_path / path).write_bytes(b"no image")
    spec = nfspec.load("nfnet-nano")
    how = spec.input.model_copy(update={"train": 16})
    changes = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "randaugment_layers": 2}
    recipe = spec.recipe.model_copy(update={**changes, "crop_area": 0.5})
    bad = []
    examples = Examples(folder(tmp_path), how, recipe, 0, BATCH, 4 * BATCH, bad.append)
    return Share(examples, BATCH, BATCH), bad


def test_the_batches_are_those_of_threads_to_the_bit(share):
    share, bad = share
    found = list(in_processes(share, 2))
    names, bad[:] = sorted(set(bad)), []
    share.examples.bad.clear()
    wanted = list(in_threads(share, 2))
    assert len(found) == len(wanted) == 3
    for (images, labels), (pictures, classes) in zip(found, wanted, strict=True):
        assert images.dtype == pictures.dtype and images.tobytes() == pictures.tobytes()
        assert labels.dtype == classes.dtype and labels.tobytes() == classes.tobytes()
    assert names == sorted(bad) and len(bad) == 2


def test_a_process_that_is_killed_is_an_error(share, monkeypatch):
    share, _ = share
    begun = []

    class Killed(readers._Reader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            begun.append(self.process)
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(readers, "_Reader", Killed)
    with pytest.raises(
        InputError, match="ended with status -9, for want of memory, perhaps; give f"
    ):
        next(in_processes(share, 1))
    assert [process.returncode for process in begun] == [-9]


def test_the_processes_end_with_the_one_who_reads(share, monkeypatch):
    share, _ = share
    begun = []

    class Counted(readers._Reader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            begun.append(self.process)

    monkeypatch.setattr(readers, "_Reader", Counted)
    batches = in_processes(share, 1)
    next(batches)
    batches.close()
    assert [process.returncode for process in begun] == [-9]


def test_a_piece_says_what_is_wrong(share, tmp_path):
    share, _ = share
    messages = []
    share.examples.on_bad = messages.append
    parts = [made(share, batch, *piece, messages) for batch in range(3) for piece in pieces(BATCH)]
    assert [len(part.pixels) for part in parts] == [PIECE, BATCH - PIECE] * 3
    assert sum(len(part.bad) for part in parts) == 2 and not messages
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    part = made(share, 0, 0, 3, messages)
    assert part.error == "none of the training images can be read"
    assert len(part.bad) == 18 and len(part.pixels) == 0
    assert pieces(PIECE) == [(0, PIECE)] and pieces(1) == [(0, 1)]


def test_sources_can_be_sent_to_a_process():
    some = digits().some(np.array([5, 3]))
    again = pickle.loads(pickle.dumps(some))
    for number in range(2):
        assert again.image(number, 1).tobytes() == some.image(number, 1).tobytes()
