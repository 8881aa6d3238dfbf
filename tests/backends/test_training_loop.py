"""The training loop, its checkpoints and evaluations, of a network that trains in seconds."""

import shutil

import keras
import numpy as np
import pytest

import nfspec
import nfspec.plan.clipping
from nfspec.backends.layers.drop import Drop
from nfspec.backends.training import checkpoints, evaluation
from nfspec.backends.training.loop import seed_drops
from nfspec.data.images import fit, normalise
from nfspec.reference.training import smoothed
from nfspec.training import logs
from nfspec.training.scores import outputs, score
from nfspec.weights.container import write
from nfspec.weights.store import read_all

from .trainings import (
    PER_EPOCH,
    STOPPED,
    another,
    assert_frozen,
    assert_same_training,
    made,
    one_thread,
    same,
)
from golden import relative
from tiny import CLASSES, SPEC, STEPS, STILL, write_spec

BOUND = 4e-6  # of parameters after a few steps in float32; see test_training.py


@pytest.fixture(scope="module", autouse=True)
def without_waiting():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed, with a checkpoint after each step."""
    training = made(tmp_path_factory.mktemp("whole"), minutes=0.0)
    killed = tmp_path_factory.mktemp("killed") / "run"

    def look():
        """Copy the folder while it trains: not to stop it."""
        if training.position.step == STOPPED + 1:
            shutil.copytree(training.folder, killed)
        return False

    training.stop = look
    assert training.train().step == STEPS
    assert checkpoints.saved(killed / "checkpoints") == [PER_EPOCH, STOPPED - 1, STOPPED]
    training.killed = killed
    return training


@pytest.fixture
def cut(whole, tmp_path):
    """The folder of one that was killed after its sixth step, in the middle of its second epoch,
    before a checkpoint of that step was written."""
    return shutil.copytree(whole.killed, tmp_path / "cut")


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


def test_a_training_that_was_killed_ends_in_the_same_bits(whole, cut):
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
        state = tensors[f"optimizer/head_fc_kernel_{kind}"]
        assert relative(state, tensors["parameter/head.fc.kernel"].astype(np.float64)) > 1e-3


def test_a_second_training_of_a_process_goes_on_too(cut):
    """Keras counts optimizers, and calls the second one sgd_1."""
    training = another(cut, SPEC, None, 1, None, {})
    assert any("sgd_" in variable.path for variable in training.optimizer.variables)
    training.resume()
    assert training.position.step == STOPPED


def still_batches(training, count):
    """Images and smoothed targets of the first batches, whatever reads them."""
    batches = []
    for step in range(count):
        examples = [training.examples[step * 8 + place] for place in range(8)]
        labels = np.stack([example.label for example in examples])
        images = np.stack([example.image for example in examples])
        batches.append(
            (images, smoothed(labels, len(CLASSES), training.run.recipe.label_smoothing))
        )
    return batches


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


def furthest(params, exact):
    return max(
        (relative(params[name], np.asarray(exact[name], np.float64)), name) for name in exact
    )


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
    stepped = {name: tensors[f"parameter/{name}"] for name in params}
    assert furthest(stepped, state.params) <= (BOUND, "")
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


def test_what_is_frozen_stays_to_the_bit(tmp_path):
    """In the averages too, over dropping and decay; all else moves."""
    frozen = ("stem.*", "*.gain")
    training = made(tmp_path, freeze=frozen)
    start = nfspec.params_of(training.network)
    training.train()
    assert_frozen(training, start)


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
    score = whole.score()
    assert (score.images, score.top1, score.top5) == (6, exact.top1, exact.top5)
    assert score.loss == pytest.approx(exact.loss, abs=6 * 2e-5 * norm)
    averages, _ = read_all(whole.folder / "weights.safetensors")
    of_averages, norm = by_hand(whole, averages)
    assert abs(of_averages.loss - exact.loss) > 1e-3
    last = whole.watcher.evaluations[-1]
    assert last["top1"] == of_averages.top1 / 6
    assert last["held_out_loss"] == pytest.approx(of_averages.loss / 6, abs=2e-5 * norm)


def test_a_last_batch_that_is_filled_up_counts_its_images_alone(whole):
    how, held = whole.spec.input, whole.held
    images = [normalise(fit(held.image(n, 3), how, 16), how) for n in range(6)]
    parts = [(np.stack(images[i : i + 4]), np.arange(6)[i : i + 4]) for i in (0, 4)]
    exact, norm = by_hand(whole, nfspec.params_of(whole.network))
    found = list(outputs(whole.logits, parts, 4))
    assert [len(each) for each, _ in found] == [4, 2]
    total = score(np.concatenate([each for each, _ in found]), held.labels)
    assert (total.images, total.top1, total.top5) == (6, exact.top1, exact.top5)
    assert total.loss == pytest.approx(exact.loss, abs=6 * 2e-5 * norm)


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


def test_seeds_and_steps_of_any_width_are_read(cut):
    """Frameworks keep them in 32 or 64 bits, signed or not."""
    path = checkpoints.path_of(cut / "checkpoints", STOPPED)
    training = made(cut)
    drops = [layer for layer in training.network.layers if isinstance(layer, Drop)]
    for kind in ("int32", "uint32", "int64"):
        tensors, metadata = read_all(path)
        for name in tensors:
            if name.startswith("seed/") or name.endswith("/iteration"):
                tensors[name] = tensors[name].astype(kind)
        metadata["checksum"] = checkpoints.checksum(tensors, metadata)
        write(path, tensors, metadata)
        seed_drops(training.network, 99)
        training.optimizer.iterations.assign(0)
        training.resume()
        assert training.position.step == STOPPED
        assert int(keras.ops.convert_to_numpy(training.optimizer.iterations)) == STOPPED
        for layer in drops:
            state = keras.ops.convert_to_numpy(layer.seed_generator.state)
            expected = tensors[f"seed/{layer.canonical}"].astype(np.int64)
            assert np.asarray(state, np.int64).tolist() == expected.tolist()


def test_drops_start_from_the_seed_alone_each_from_its_own(tmp_path):
    network = made(tmp_path, seed=1).network
    drops = [layer for layer in network.layers if isinstance(layer, Drop)]

    def states():
        return [keras.ops.convert_to_numpy(d.seed_generator.state).tolist() for d in drops]

    drawn = {1: states()}
    for seed in (0, 1):
        seed_drops(network, seed)
        drawn.setdefault(seed, states())
        assert states() == drawn[seed]
    assert len({state[0] for state in drawn[0] + drawn[1]}) == 4
