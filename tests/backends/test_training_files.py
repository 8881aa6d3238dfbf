"""Files that a training keeps, refuses or goes back to; they are the same on any framework.

Once, on PyTorch: nothing here is computed by a framework in a way of its own. That each goes on to
the bit is in test_training_loop.py.
"""

import contextlib
import dataclasses
import errno
import os
import shutil

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.training import checkpoints, evaluation
from nfspec.files import replacing
from nfspec.training.failures import Diverged, OtherTraining
from nfspec.training.options import Options
from nfspec.training.processes import Asked
from nfspec.training.scores import Score
from nfspec.training.session import train
from nfspec.weights import container
from nfspec.weights.container import write
from nfspec.weights.files import writing
from nfspec.weights.store import read_all

from .trainings import (
    PER_EPOCH,
    STOPPED,
    Lent,
    Told,
    assert_frozen,
    assert_same_training,
    bits,
    made,
    one_thread,
    same,
    sources,
    stop_after,
)
from tiny import SPEC, STEPS, log_of, write_images, write_spec

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="once, on PyTorch")


@pytest.fixture(scope="module", autouse=True)
def without_waiting():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed."""
    training = made(tmp_path_factory.mktemp("whole"))
    assert training.train().step == STEPS
    return training


@pytest.fixture(scope="module")
def lent(tmp_path_factory):
    return Lent(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def stopped(lent, tmp_path_factory):
    """The folder of one that was stopped after step 5, in the middle of its second epoch."""
    training = lent(tmp_path_factory.mktemp("stopped"))
    folder = stop_after(training, STOPPED)
    assert checkpoints.saved(training.checkpoints) == [PER_EPOCH, STOPPED]
    return folder


@pytest.fixture
def cut(stopped, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(stopped, tmp_path / "cut")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: bytes(len(whole)),
        lambda whole: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    ],
    ids=["empty", "half", "a byte short", "zero", "the second half zero"],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, cut, lent, damage):
    path = checkpoints.path_of(cut / "checkpoints", STOPPED)
    path.write_bytes(damage(path.read_bytes()))
    training = lent(cut)
    training.resume()
    assert training.position.step == PER_EPOCH
    first, second = training.watcher.messages
    assert first.startswith(f"{path}: ")
    assert first.endswith("going back to the one before it")
    assert second == "going on after step 3 of 12"
    training.train()
    assert_same_training(cut, whole.folder)


def test_a_checkpoint_of_an_earlier_version_is_not_called_damaged(cut, lent):
    path = checkpoints.path_of(cut / "checkpoints", STOPPED)
    tensors, metadata = read_all(path)
    del metadata["checksum"]
    metadata |= {"format": "nfspec-checkpoint/1", "sha256": "0" * 64}
    write(path, tensors, metadata)
    with pytest.raises(OtherTraining, match="written by an earlier version of nfspec"):
        lent(cut).resume()
    assert path.exists()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_gives_way_too_and_is_not_waited_for(cut, lent, make):
    path = checkpoints.path_of(cut / "checkpoints", STOPPED)
    path.unlink()
    make(path)
    training = lent(cut)
    training.resume()
    assert training.position.step == PER_EPOCH


def test_where_all_checkpoints_are_damaged_it_starts_from_the_start(whole, cut, lent):
    for path in (cut / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    training = lent(cut)
    training.resume()
    assert training.watcher.messages[2:] == ["going on after step 0 of 12"]
    assert log_of(cut) == []
    training.train()
    assert_same_training(cut, whole.folder)


def test_what_is_written_after_going_back_is_not_deleted_for_what_is_damaged(cut, lent):
    """Nor are the damaged ones kept in its place: the next start needs a whole one."""
    for path in (cut / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    training = lent(cut, minutes=0.0)
    training.resume()
    training.stop = lambda: training.position.step == 2
    training.train()
    again = lent(cut)
    again.resume()
    assert again.position.step == 2


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"freeze": ("stem.*",)},
        {"accumulation": 2},
        {"text": SPEC.replace("learning_rate = 0.2", "learning_rate = 0.1")},
        {"text": SPEC.replace("dropout = 0.2", "dropout = 0.3")},
        {"text": SPEC.replace("epochs = 4", "epochs = 5")},
        {"text": SPEC + '[agc]\nclipping = 0.02\n[activation]\nkind = "silu"'},
        {"source": lambda train: train.some(np.arange(len(train) - 1))},
        {"source": lambda train: train.some(np.arange(len(train))[::-1])},
    ],
    ids=["seed", "freeze", "accumulation", "rate", "dropout", "epochs", "agc", "fewer", "order"],
)
def test_a_checkpoint_of_another_training_is_refused(cut, other):
    """Whatever it is that a step depends on; an older one of the other training is not taken."""
    before, log = bits(cut), log_of(cut)
    if "source" in other:
        other = {"source": other["source"](sources()[0])}
    training = made(cut, **other)
    params = nfspec.params_of(training.network)
    with pytest.raises(nfspec.WeightError, match=r"step-00000005\.safetensors: a checkpoint of an"):
        training.resume()
    assert training.position.step == 0
    assert same(nfspec.params_of(training.network), params) == []
    assert (bits(cut), log_of(cut)) == (before, log)


def test_a_name_and_a_source_in_words_are_not_another_training(cut):
    text = SPEC.replace('name = "tiny"', 'name = "renamed"').replace("a test", "the same test")
    training = made(cut, text)
    training.resume()
    assert training.position.step == STOPPED


def test_the_newest_two_and_the_best_are_kept(lent, tmp_path, monkeypatch):
    """A later evaluation that is as good is not better."""
    training = lent(tmp_path, minutes=0.0)
    right = iter([1, 4, 4, 3])
    monkeypatch.setattr(training, "score", lambda: Score(6, next(right), 6, 6.0))
    kept = []
    training.watcher.step = lambda entry: kept.append(checkpoints.saved(training.checkpoints))
    training.train()
    assert kept[:6] == [[], [1], [1, 2], [2, 3], [3, 4], [3, 4, 5]]
    assert kept[6:9] == [[5, 6], [6, 7], [6, 7, 8]]
    assert checkpoints.saved(training.checkpoints) == [6, 11, 12]
    assert training.position == checkpoints.Position(STEPS, 6, 4 / 6)
    best, _ = read_all(training.folder / "best.safetensors")
    path = checkpoints.path_of(training.checkpoints, 6)
    checkpoints.restore(path, training.network, training.optimizer, training.digest)
    assert same(nfspec.params_of(training.trainer, average=True), best) == []


def test_checkpoints_are_as_far_apart_as_asked(whole):
    """An hour between them: at the ends of epochs alone, the newest two and the best."""
    best = whole.position.best_step
    assert checkpoints.saved(whole.checkpoints) == sorted({best, 9, 12})


def test_what_was_being_written_is_swept(cut):
    """And nothing of the user's, whatever it is called."""
    unfinished = []
    for folder in (cut, cut / "checkpoints"):
        with contextlib.suppress(ZeroDivisionError), replacing(folder / "file") as temporary:
            unfinished.append(temporary)
            1 / 0  # noqa: B018
    others = [cut / "notes.tmp", cut / ".notes.tmp", cut / ".0123456789abcdef.tmp", cut / ".hidden"]
    others += [cut / "checkpoints" / ".nfspec-mine.tmp", cut / "checkpoints" / "mine.safetensors"]
    for path in (*unfinished, *others):
        path.write_bytes(b"half")
    made(cut).resume()
    assert not any(path.exists() for path in unfinished)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("written", [0, 1000], ids=["nothing", "a part"])
def test_a_write_that_fails_leaves_what_was_there(whole, cut, lent, monkeypatch, written):
    @contextlib.contextmanager
    def full(path):
        with writing(path) as file:
            file.write(bytes(written))
            raise OSError(errno.ENOSPC, "No space left on device")
            yield

    before = bits(cut)
    weights = (cut / "weights.safetensors").read_bytes()
    training = lent(cut)
    training.resume()
    with monkeypatch.context() as patched:
        patched.setattr(container, "writing", full)
        with pytest.raises(nfspec.WeightError, match="cannot be written: No space left on device"):
            training.train()
    assert bits(cut) == before
    assert (cut / "weights.safetensors").read_bytes() == weights
    assert not list(cut.rglob(".*.tmp"))
    again = lent(cut)
    again.resume()
    again.train()
    assert_same_training(cut, whole.folder)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("stem.*", "steam.*"), r'no parameter is called "steam\.\*".*like stem\.conv0\.kernel'),
        (("*",), "nothing is left to train"),
        (("stem.*", "stages.*", "head.*"), "nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(tmp_path, patterns, message):
    with pytest.raises(nfspec.InputError, match=message):
        made(tmp_path, freeze=patterns)


def test_what_is_frozen_stays_over_a_stop_in_between(tmp_path):
    frozen = ("stem.*", "*.gain")
    first = made(tmp_path, freeze=frozen, last=STOPPED)
    start = nfspec.params_of(first.network)
    first.train()
    training = made(tmp_path, freeze=frozen)
    training.resume()
    training.train()
    assert_frozen(training, start)


def test_a_training_that_was_stopped_ends_in_the_same_bits(whole, cut, lent):
    training = lent(cut)
    training.resume()
    training.train()
    assert_same_training(cut, whole.folder)


def test_a_loss_that_is_not_a_number_ends_the_training(cut, lent):
    before, log = bits(cut), log_of(cut)
    training = lent(cut)
    training.resume()
    (bias,) = [v for v in training.network.trainable_variables if v.canonical == "head.fc.bias"]
    bias.assign(np.full(bias.shape, np.nan, np.float32))
    message = r"^step 6: the loss is nan, at a learning rate of 0\.17.* \(--lr\), .* \(--clipping"
    with pytest.raises(Diverged, match=message):
        training.train()
    assert (bits(cut), log_of(cut)) == (before, log)
    assert training.position.step == STOPPED


def test_weights_that_are_no_numbers_after_the_last_step_are_not_a_result(cut, lent):
    """The last step's loss is of the parameters before it: what it made of them is looked at."""
    training = lent(cut, last=STOPPED + 1)
    training.resume()
    weights = (cut / "weights.safetensors").read_bytes()
    train = training.devices.train

    def overflows(trainer, x, y):
        ending = train(trainer, x, y)
        for variable, average in training.optimizer.averages:
            variable.assign(np.full(variable.shape, np.nan, np.float32))
            average.assign(np.full(variable.shape, np.nan, np.float32))
        return ending

    training.devices.train = overflows
    with pytest.raises(Diverged):
        training.train()
    assert (cut / "weights.safetensors").read_bytes() == weights


def test_without_averages_nothing_is_swapped(whole):
    params = nfspec.params_of(whole.network)
    with evaluation.averaged(keras.optimizers.SGD(0.1)):
        assert same(nfspec.params_of(whole.network), params) == []


class Asking(Told):
    """A watcher that asks to stop after a step."""

    def __init__(self, asked, step):
        super().__init__()
        self.asked, self.last = asked, step

    def step(self, entry):
        super().step(entry)
        self.asked.caught += entry["step"] == self.last


def test_the_function_of_the_library_trains_and_goes_on(whole, tmp_path):
    """To the log of a training that was put together by hand, over a stop in between."""
    images, out = write_images(tmp_path / "data"), tmp_path / "run"
    asked = Asked()
    watcher = Asking(asked, STOPPED)
    options = Options(write_spec(tmp_path), images, "torch", out, workers=2)
    outcome = train(options, lambda steps: contextlib.nullcontext(watcher), asked)
    assert (outcome.step, outcome.steps, outcome.stopped) == (STOPPED, STEPS, True)
    assert watcher.messages[0].startswith("network ")
    outcome = train(dataclasses.replace(options, resume=True))
    assert (outcome.folder, outcome.step, outcome.stopped) == (out, STEPS, False)
    assert [entry for entry in outcome.entries if "top1" in entry][-1] == outcome.final
    assert log_of(out) == log_of(whole.folder)
    for name in ("weights.safetensors", "best.safetensors"):
        assert same(read_all(out / name)[0], read_all(whole.folder / name)[0]) == []


def test_what_is_stopped_before_it_begins_writes_nothing(tmp_path):
    images = write_images(tmp_path / "data")
    options = Options(write_spec(tmp_path), images, "torch", tmp_path / "run")
    outcome = train(options, asked=Asked(caught=1))
    assert (outcome.step, outcome.stopped, outcome.entries) == (None, True, [])
    assert not (tmp_path / "run").exists()
