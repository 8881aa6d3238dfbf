"""The reference refuses other inputs in a sentence: it broadcasts, ignores and guesses nothing."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import nfspec
from nfspec.errors import InputError, WeightError
from nfspec.reference.training import TrainingState, learning_rate, smoothed

from tiny import write_spec

with TemporaryDirectory() as _folder:
    SPEC = nfspec.load(write_spec(Path(_folder)))
PLAN = nfspec.resolve(SPEC)
PARAMS = nfspec.init(PLAN)
X = np.random.default_rng(0).standard_normal((2, 16, 16, 3))
GAIN = "stem.conv0.gain"
CLASSES = PARAMS["head.fc.bias"].shape[0]
TARGETS = np.full((2, CLASSES), 1.0 / CLASSES)


def doors(params, x):
    """Every function of the reference that takes parameters and images."""
    yield lambda: nfspec.reference.forward(PLAN, params, x)
    yield lambda: nfspec.reference.loss_and_gradients(PLAN, params, x, TARGETS)
    yield lambda: nfspec.signal.measure(PLAN, params, x)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({GAIN: np.ones(1, np.float32)}, rf"{GAIN}: shape \(1,\), expected \("),
        ({GAIN: np.float32(1.0)}, rf"{GAIN}: shape \(\), expected \("),
        ({GAIN: np.ones(PARAMS[GAIN].shape, int)}, rf"{GAIN}: int64 of shape"),
        ({GAIN: np.ma.array(PARAMS[GAIN], mask=True)}, f"{GAIN}: a masked array"),
        ({GAIN: "ones"}, f"{GAIN}: <U4"),
        ({GAIN: [[1.0], [1.0, 2.0]]}, f"{GAIN}: .* makes no array"),
        ({GAIN: None}, f"{GAIN}: object"),
        ({"stem.conv9.gain": np.ones(1)}, "stem.conv9.gain: not in this network"),
        ({3: np.ones(1)}, "names that are text"),
    ],
)
def test_parameters_that_do_not_fit_are_named(changes, message):
    for door in doors({**PARAMS, **changes}, X):
        with pytest.raises(WeightError, match=message):
            door()


@pytest.mark.parametrize("params", [{}, None, [1.0]])
def test_what_are_no_parameters_is_said(params):
    for door in doors(params, X):
        with pytest.raises(WeightError, match=r"missing, expected|expected a dict of arrays"):
            door()


@pytest.mark.parametrize(
    "x, message",
    [
        (X[0], r"images: expected an array of shape \(N, H, W, 3\); found \(16, 16, 3\)"),
        (X[..., :1], r"found \(2, 16, 16, 1\)"),
        (X.transpose(0, 3, 1, 2), r"found \(2, 3, 16, 16\)"),
        (X[:0], "expected at least one; found none"),
        (X[:, :0], "image of 0x16 px: nothing is left"),
        ((X * 50).astype(np.uint8), r"floating numbers; found uint8 of shape"),
        (X > 0, "floating numbers; found bool"),
        (np.where(X > 3, np.nan, X), r"expected finite numbers; found nan at \("),
        (np.where(X > 3, np.inf, X), r"expected finite numbers; found inf at \("),
        (X + 0j, "floating numbers; found complex128"),
        (np.ma.array(X, mask=X > 1), "a masked array"),
        ([[1.0], [1.0, 2.0]], "makes no array"),
        ("photo.jpg", "floating numbers; found <U9"),
        (None, "floating numbers; found object"),
    ],
)
def test_images_that_are_none_are_said(x, message):
    for door in doors(PARAMS, x):
        with pytest.raises(InputError, match=message):
            door()


def test_lists_of_floating_numbers_and_any_floating_dtype_are_taken():
    wanted = nfspec.reference.forward(PLAN, PARAMS, X)["logits"]
    wide = {name: value.astype(np.float64) for name, value in PARAMS.items()}
    actual = nfspec.reference.forward(PLAN, wide, X.tolist())["logits"]
    assert np.array_equal(actual, wanted)


@pytest.mark.parametrize(
    "taps, message",
    [
        ({"a": "nowhere"}, "taps: a: no operation .* is called 'nowhere'"),
        (["logits"], "taps: .* dict"),
    ],
)
def test_taps_of_no_operation_are_said(taps, message):
    with pytest.raises(InputError, match=message):
        nfspec.reference.forward(PLAN, PARAMS, X, taps)


@pytest.mark.parametrize("plan", [None, "nfnet-f0", SPEC])
def test_what_is_no_plan_is_said(plan):
    with pytest.raises(InputError, match=r"plan: expected what nfspec.resolve returns"):
        nfspec.reference.forward(plan, PARAMS, X)


@pytest.mark.parametrize(
    "targets, message",
    [
        (TARGETS[:1], "targets: expected a distribution for each image"),
        (TARGETS * np.nan, "targets: expected finite numbers"),
        ("cat", "targets: expected an array .* found <U3"),
    ],
)
def test_targets_that_are_none_are_said(targets, message):
    with pytest.raises(InputError, match=message):
        nfspec.reference.loss_and_gradients(PLAN, PARAMS, X, targets)


@pytest.mark.parametrize("rate", [np.nan, np.inf, -0.1, "0.1", True, None])
def test_a_rate_that_is_none_is_said(rate):
    state = TrainingState.start(PLAN, PARAMS)
    with pytest.raises(InputError, match=r"learning_rate: expected a finite number from 0"):
        nfspec.reference.train_step(PLAN, state, X, TARGETS, rate)


def test_a_state_that_is_none_is_said():
    with pytest.raises(InputError, match=r"state: expected what TrainingState.start returns"):
        nfspec.reference.train_step(PLAN, PARAMS, X, TARGETS, 0.1)
    with pytest.raises(WeightError, match="missing, expected"):
        TrainingState.start(PLAN, {})


@pytest.mark.parametrize(
    "arguments", [([1, 2], 2.5, 0.1), ([1, 2], 3, 1.5), ([1.0, 2.0], 3, 0.1), ([True], 3, 0.1),
                  ([[np.nan, 1.0]], 2, 0.1), ("cat", 3, 0.1), ([3], 3, 0.1)],
)  # fmt: skip
def test_labels_that_are_none_are_said(arguments):
    with pytest.raises(InputError, match=r"^(labels|classes|smoothing): expected"):
        smoothed(*arguments)


@pytest.mark.parametrize(
    "arguments", [(np.nan, 1, 10, 1, 0), (0, 1, 10, np.nan, 0), (0, 1, 0, 0, 0)]
)
def test_a_schedule_that_is_none_is_said(arguments):
    with pytest.raises(InputError, match=r"^(step|steps|warmup): expected"):
        learning_rate(*arguments)
