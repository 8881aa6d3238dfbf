"""The training loop, its checkpoints and evaluations, of a network that trains in seconds.

Everything that draws is on: dropout, stochastic depth, crops, flips, RandAugment, mixup, CutMix.
"""

import contextlib
import errno
import os
import shutil
from functools import cache

import keras
import numpy as np
import pytest
from PIL import Image

import nfspec
import nfspec.plan.clipping
import nfspec.weights.store
from nfspec.backends.layers.drop import Drop
from nfspec.backends.training import checkpoints, evaluation
from nfspec.backends.training.devices import Devices
from nfspec.backends.training.loop import Settings, Training
from nfspec.data.images import fit, normalise
from nfspec.data.sources import Source, split
from nfspec.files import replacing
from nfspec.reference.training import smoothed
from nfspec.training import logs
from nfspec.training.failures import Diverged
from nfspec.training.scores import Score, score
from nfspec.weights import container
from nfspec.weights.files import writing
from nfspec.weights.store import read_all

from golden import relative
from tiny import CLASSES, EACH, SPEC, STILL, log_of, pictures, write_spec

STEPS = 12
PER_EPOCH = 3
STOPPED = 5
BOUND = 4e-6  # of parameters after a few steps in float32; see test_training.py


@pytest.fixture(scope="module", autouse=True)
def quickly(tmp_path_factory):
    """Each program is compiled once; and threads that wait for each other on busy cores do not."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)
    elif backend == "torch":
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
    else:
        yield


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


def same(found, expected):
    """Names in which two dicts of arrays are not the same to the bit."""
    assert set(found) == set(expected)
    return [
        name
        for name, array in expected.items()
        if (found[name].shape, found[name].dtype, found[name].tobytes())
        != (array.shape, array.dtype, array.tobytes())
    ]


def assert_same_training(folder, whole):
    """All that is written down is the same: parameters, averages, momentum, seeds, log."""
    files = ("weights.safetensors", "best.safetensors", f"checkpoints/step-{STEPS:08d}.safetensors")
    for file in files:
        (found, facts), (expected, others) = read_all(folder / file), read_all(whole / file)
        assert same(found, expected) == [], file
        assert facts == others
    assert log_of(folder) == log_of(whole)


def bits(folder):
    """Each checkpoint's name, and its bytes."""
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed."""
    training = made(tmp_path_factory.mktemp("whole"))
    assert training.train().step == STEPS
    return training


@pytest.fixture(scope="module")
def lent(tmp_path_factory):
    """A training that is already compiled, set back to its start, in another folder."""
    start = tmp_path_factory.mktemp("start")
    training = made(start)
    digest = training.digest
    checkpoints.save(start, training.network, training.optimizer, checkpoints.Position(0), digest)

    def lend(folder, **settings):
        path = checkpoints.path_of(start, 0)
        training.position = checkpoints.restore(path, training.network, training.optimizer, digest)
        training.folder, training.watcher, training.devices = folder, Told(), Devices()
        training.settings = Settings(**{"minutes": 60.0, **settings})
        training.stop = lambda: False
        return training

    return lend


@pytest.fixture(scope="module")
def stopped(lent, tmp_path_factory):
    """The folder of one that was stopped after step 5, in the middle of its second epoch."""
    training = lent(tmp_path_factory.mktemp("stopped"))
    training.stop = lambda: training.position.step == STOPPED
    assert training.train().step == STOPPED
    assert checkpoints.saved(training.checkpoints) == [PER_EPOCH, STOPPED]
    return training.folder


@pytest.fixture
def cut(stopped, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(stopped, tmp_path / "cut")


def test_the_log_has_a_line_for_each_step_and_each_evaluation(whole):
    entries = logs.read(whole.log)
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert [entry["epoch"] for entry in steps] == [n / PER_EPOCH for n in range(1, STEPS + 1)]
    evaluations = [entry for entry in entries if "top1" in entry]
    assert [entry["step"] for entry in evaluations] == [3, 6, 9, 12]
    assert {entry["held_out_images"] for entry in evaluations} == {6}
    assert whole.watcher.steps == steps
    assert whole.watcher.evaluations == evaluations
    assert whole.watcher.messages == []
    run = whole.run
    rates = [
        nfspec.reference.training.learning_rate(step, run.learning_rate, STEPS, run.warmup, 0.0)
        for step in range(STEPS)
    ]
    assert [entry["rate"] for entry in steps] == pytest.approx(rates, rel=1e-6, abs=1e-9)
    assert not list(whole.folder.rglob(".*.tmp"))


def test_a_training_that_was_stopped_ends_in_the_same_bits(whole, cut):
    training = made(cut)
    training.resume()
    assert training.position == checkpoints.Position(STOPPED, 3, training.position.best)
    assert training.watcher.messages == ["going on after step 5 of 12"]
    assert training.train().step == STEPS
    assert len(training.watcher.steps) == STEPS - STOPPED
    assert_same_training(cut, whole.folder)


def test_the_training_is_one_whose_state_matters(whole):
    """The seeds have moved, the averages are not the parameters, the momentum is not zero."""
    tensors, _ = read_all(checkpoints.path_of(whole.checkpoints, STEPS))
    moved = {name: state for name, state in tensors.items() if name.startswith("seed/")}
    assert len(moved) == 2
    assert all(counter > 0 for _, counter in moved.values())
    for kind in ("average", "momentum"):
        found = tensors[f"optimizer/head_fc_kernel_{kind}"]
        assert relative(found, tensors["parameter/head.fc.kernel"].astype(np.float64)) > 1e-3


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
    nfspec.weights.store.write(path, tensors, metadata)
    with pytest.raises(checkpoints.OtherTraining, match="written by an earlier version of nfspec"):
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


def test_a_second_training_of_a_process_goes_on_too(stopped, cut):
    """Keras counts optimizers, and calls the second one sgd_1."""
    made(cut)
    training = another(cut, SPEC, None, 1, None, {})
    training.resume()
    assert training.position.step == STOPPED


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


def still_batches(training, count):
    """Images and smoothed targets of the first batches, whatever reads them."""
    found = []
    for step in range(count):
        examples = [training.examples[step * 8 + place] for place in range(8)]
        labels = np.stack([example.label for example in examples])
        images = np.stack([example.image for example in examples])
        found.append((images, smoothed(labels, len(CLASSES), training.run.recipe.label_smoothing)))
    return found


def reference_run(training, params, data):
    """The float64 reference after a step for each batch, and what it reports of each."""
    run = training.run
    state = nfspec.reference.TrainingState.start(run.plan, params)
    reports = []
    for step, (images, targets) in enumerate(data):
        rate = nfspec.reference.training.learning_rate(
            step, run.learning_rate, run.steps, run.warmup, 0.0
        )
        state, report = nfspec.reference.train_step(run.plan, state, images, targets, rate)
        reports.append(report)
    return state, reports


def furthest(found, exact):
    return max((relative(found[name], np.asarray(exact[name], np.float64)), name) for name in exact)


def test_two_micro_batches_are_the_whole_batchs_step(tmp_path):
    """Against the reference's steps of whole batches, without dropping, which it does not draw."""
    count = 4
    plan = nfspec.resolve(nfspec.load(write_spec(tmp_path, STILL)))
    rng = np.random.default_rng(0)
    # Away from their initial values, so that no norm is that of an update alone.
    params = {
        name: np.asarray(value + 0.1 * rng.standard_normal(value.shape), np.float32)
        for name, value in nfspec.init(plan).items()
    }
    training = made(tmp_path, STILL, params=params, accumulation=2, last=count)
    data = still_batches(training, count)
    training.train()
    state, reports = reference_run(training, params, data)
    tensors, _ = read_all(checkpoints.path_of(training.checkpoints, count))
    found = {name: tensors[f"parameter/{name}"] for name in params}
    assert furthest(found, state.params) <= (BOUND, "")
    averages = nfspec.params_of(training.trainer, average=True)
    assert furthest(averages, state.averages) <= (BOUND, "")
    losses = [entry["loss"] for entry in training.watcher.steps]
    assert losses == pytest.approx([report.loss for report in reports], rel=1e-5)
    rules = nfspec.plan.clipping.clip_rules(plan)
    for entry, report in zip(training.watcher.steps, reports, strict=True):
        clipped = sum(f * rules[name].units for name, f in report.clip_fractions.items())
        units = sum(rules[name].units for name in report.clip_fractions)
        assert entry["clip_fraction"] == pytest.approx(clipped / units, rel=1e-6)
    # The half of each batch alone would be seen.
    half, _ = reference_run(training, params, [(x[:4], y[:4]) for x, y in data])
    assert furthest(half.params, state.params)[0] > 3 * BOUND


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


def test_what_is_frozen_stays_to_the_bit(tmp_path):
    """In the averages too, over dropping, decay and a stop in between; all else moves."""
    frozen = ("stem.*", "*.gain")
    first = made(tmp_path, freeze=frozen, last=STOPPED)
    start = nfspec.params_of(first.network)
    first.train()
    training = made(tmp_path, freeze=frozen)
    training.resume()
    training.train()
    names = [n for n in start if n.startswith("stem.") or n.endswith(".gain")]
    assert 3 < len(names) < len(start)
    for average in (False, True):
        found = nfspec.params_of(training.trainer, average=average)
        stayed = [name for name in start if name not in same(found, start)]
        assert stayed == names
    for file in ("weights.safetensors", "best.safetensors"):
        found, _ = read_all(tmp_path / file)
        assert same({n: found[n] for n in names}, {n: start[n] for n in names}) == []


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
        found = train(trainer, x, y)
        for variable, average in training.optimizer.averages:
            variable.assign(np.full(variable.shape, np.nan, np.float32))
            average.assign(np.full(variable.shape, np.nan, np.float32))
        return found

    training.devices.train = overflows
    with pytest.raises(Diverged):
        training.train()
    assert (cut / "weights.safetensors").read_bytes() == weights


def test_averages_are_swapped_in_and_back_to_the_bit(whole):
    params = nfspec.params_of(whole.network)
    averages = nfspec.params_of(whole.trainer, average=True)
    assert {name for name in params if "kernel" in name} <= set(same(averages, params))
    with evaluation.averaged(whole.optimizer):
        assert same(nfspec.params_of(whole.network), averages) == []
    assert same(nfspec.params_of(whole.network), params) == []
    with pytest.raises(KeyError), evaluation.averaged(whole.optimizer):
        raise KeyError
    assert same(nfspec.params_of(whole.network), params) == []
    weights, _ = read_all(whole.folder / "weights.safetensors")
    assert same(weights, averages) == []


def test_without_averages_nothing_is_swapped(whole):
    params = nfspec.params_of(whole.network)
    with evaluation.averaged(keras.optimizers.SGD(0.1)):
        assert same(nfspec.params_of(whole.network), params) == []


def by_hand(training, params):
    """The reference's score of the held-out images, and the largest norm of its outputs."""
    how, held = training.spec.input, training.held
    images = np.stack([normalise(fit(held.image(n, 3), how, 16), how) for n in range(len(held))])
    logits = nfspec.reference.forward(training.plan, params, images)["logits"]
    return score(logits, held.labels), np.linalg.norm(logits, axis=1).max()


def test_the_score_is_the_references(whole):
    """float32's outputs are off by under 1e-5 of their norm (see test_golden.py), and a
    cross-entropy by at most twice what its outputs are; no two outputs are as near as that."""
    exact, norm = by_hand(whole, nfspec.params_of(whole.network))
    found = whole.score()
    assert (found.images, found.top1, found.top5) == (6, exact.top1, exact.top5)
    assert found.loss == pytest.approx(exact.loss, abs=6 * 2e-5 * norm)
    averages, _ = read_all(whole.folder / "weights.safetensors")
    of_averages, norm = by_hand(whole, averages)
    assert abs(of_averages.loss - exact.loss) > 1e-3
    last = whole.watcher.evaluations[-1]
    assert last["top1"] == of_averages.top1 / 6
    assert last["held_out_loss"] == pytest.approx(of_averages.loss / 6, abs=2e-5 * norm)


def test_a_last_batch_that_is_filled_up_counts_its_images_alone(whole):
    how, held = whole.spec.input, whole.held
    images = [normalise(fit(held.image(n, 3), how, 16), how) for n in range(6)]
    parts = [(np.stack(images[i : i + 4]), held.labels[i : i + 4]) for i in (0, 4)]
    exact, norm = by_hand(whole, nfspec.params_of(whole.network))
    found = evaluation.evaluate(whole.logits, parts, 4)
    assert (found.images, found.top1, found.top5) == (6, exact.top1, exact.top5)
    assert found.loss == pytest.approx(exact.loss, abs=6 * 2e-5 * norm)


def test_clip_fractions_of_stages_add_up_to_the_whole(whole):
    rules = nfspec.plan.clipping.clip_rules(whole.plan)
    units = {"stem": 0, "stages.0": 0, "stages.1": 0, "head": 0}
    for name, rule in rules.items():
        if rule.clipping is not None:
            units[next(stage for stage in units if name.startswith(f"{stage}."))] += rule.units
    seen = set()
    for entry in whole.watcher.steps:
        fractions = entry["clip_fraction_of"]
        assert fractions.keys() == units.keys()
        total = sum(fractions[stage] * units[stage] for stage in units)
        assert entry["clip_fraction"] == pytest.approx(total / sum(units.values()), rel=1e-6)
        for stage, fraction in fractions.items():
            count = fraction * units[stage]
            assert count == pytest.approx(round(count), abs=1e-3)
        seen |= set(fractions.values())
    assert len(seen) > 4


def test_a_checkpoint_has_the_same_tensors_on_every_framework(whole):
    """So that each reads the others': what is in it follows from the plan alone."""
    block = {
        "conv0.kernel": (1, 1, 8, 8),
        "conv1.kernel": (3, 3, 8, 8),
        "conv2.kernel": (1, 1, 8, 16),
        "conv_shortcut.kernel": (1, 1, 8, 16),
    }
    second = {
        "conv0.kernel": (1, 1, 16, 16),
        "conv1.kernel": (3, 3, 8, 16),
        "conv2.kernel": (1, 1, 16, 32),
        "conv_shortcut.kernel": (1, 1, 16, 32),
    }
    convs = {"stem.conv0.kernel": (3, 3, 3, 8)}
    convs |= {f"stages.0.blocks.0.{name}": shape for name, shape in block.items()}
    convs |= {f"stages.1.blocks.0.{name}": shape for name, shape in second.items()}
    shapes = {}
    for name, shape in convs.items():
        for part in ("gain", "bias"):
            shapes[name.replace("kernel", part)] = shape[-1:]
        shapes[name] = shape
    shapes["stages.0.blocks.0.skip_gain"] = shapes["stages.1.blocks.0.skip_gain"] = ()
    shapes |= {"head.fc.kernel": (32, 3), "head.fc.bias": (3,)}
    assert shapes == {name: p.shape for name, p in whole.plan.parameters.items()}

    expected = {"optimizer/iteration": ()}
    for name, shape in shapes.items():
        flat = name.replace(".", "_").replace("0_skip", "0_add_skip")  # Keras's path of it
        expected[f"parameter/{name}"] = shape
        expected[f"optimizer/{flat}_momentum"] = shape
        expected[f"optimizer/{flat}_average"] = shape
        if name != "head.fc.kernel":
            expected[f"optimizer/{name.replace('.', '_')}_clip_fraction"] = ()
    for layer in ("stages.1.blocks.0.stochastic_depth", "head.dropout"):
        expected[f"seed/{layer}"] = (2,)
    tensors, metadata = read_all(checkpoints.path_of(whole.checkpoints, STEPS))
    assert {name: array.shape for name, array in tensors.items()} == expected
    assert metadata.keys() == {"format", "digest", "position", "checksum"}
    kinds = {array.dtype.name for name, array in tensors.items() if "seed/" not in name}
    assert kinds - {"float32"} <= {"int32", "int64"}  # of the iteration


@pytest.mark.parametrize("kind", ["int32", "uint32", "int64"])
def test_seeds_and_steps_of_any_width_are_read(cut, kind):
    """Frameworks keep them in 32 or 64 bits, signed or not."""
    path = checkpoints.path_of(cut / "checkpoints", STOPPED)
    tensors, metadata = read_all(path)
    for name in tensors:
        if name.startswith("seed/") or name.endswith("/iteration"):
            tensors[name] = tensors[name].astype(kind)
    metadata["checksum"] = checkpoints.checksum(tensors, metadata)
    nfspec.weights.store.write(path, tensors, metadata)
    training = made(cut)
    training.resume()
    assert training.position.step == STOPPED
    assert int(keras.ops.convert_to_numpy(training.optimizer.iterations)) == STOPPED
    for layer in training.network.layers:
        if isinstance(layer, Drop):
            found = np.asarray(keras.ops.convert_to_numpy(layer.seed_generator.state), np.int64)
            expected = tensors[f"seed/{layer.canonical}"].astype(np.int64)
            assert found.tolist() == expected.tolist()


def test_drops_start_from_the_seed_alone_each_from_its_own(tmp_path):
    states = []
    for number, seed in enumerate((0, 0, 1)):
        network = made(tmp_path / str(number), seed=seed).network
        drops = [layer for layer in network.layers if isinstance(layer, Drop)]
        states.append([keras.ops.convert_to_numpy(d.seed_generator.state).tolist() for d in drops])
    assert states[0] == states[1]
    drawn = [state[0] for state in states[0] + states[2]]
    assert len(set(drawn)) == 4
