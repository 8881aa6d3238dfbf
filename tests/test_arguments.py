"""A wrong argument of a public function is a sentence: name, what was expected, what was found."""

import numpy as np
import pytest

import nfspec
from nfspec import arguments
from nfspec.cost import memory
from nfspec.cost import roofline as costs
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.errors import InputError, NfspecError

SPEC = nfspec.load("nfnet-nano")
PLAN = nfspec.resolve(SPEC)
TPU = next(iter(ACCELERATORS.values()))

# No whole numbers from 1 on, whatever they are equal to.
NOT_WHOLE = [1.5, 64.0, True, np.nan, np.inf, "64", b"64", [64], {64}, 0, -1, np.float32(64),
             np.array([64]), np.bool_(True), 1 + 0j, object()]  # fmt: skip
NOT_NUMBERS = [np.nan, np.inf, -np.inf, "0.1", True, [0.1], -0.1, 1j, np.array([0.1])]

DOORS = {
    "size": lambda v: nfspec.count(PLAN, v),
    "size of two": lambda v: nfspec.count(PLAN, (64, v)),
    "steps": lambda v: nfspec.recipe(PLAN, steps=v),
    "batch": lambda v: nfspec.recipe(PLAN, batch=v),
    "accumulation": lambda v: nfspec.recipe(PLAN, accumulation=v),
    "batch on devices": lambda v: costs.step(PLAN, TPU, v),
    "devices": lambda v: costs.step(PLAN, TPU, 8, v),
    "size of training": lambda v: memory.training_memory(PLAN, 1, v),
    "batch in memory": lambda v: memory.training_memory(PLAN, v),
}


@pytest.fixture(scope="module", autouse=True)
def quick_keras():
    """Keras on the framework that starts in the least time; no argument gets as far as that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        yield


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_whole_number_is_a_sentence(door, value):
    name = door.split()[0]
    with pytest.raises(InputError, match=rf"^{name}: expected a whole number.* from 1 on; found "):
        DOORS[door](value)


@pytest.mark.parametrize("value", [1.5, 1.0, True, "x", -1, None, np.nan, (0,)], ids=repr)
def test_a_seed_that_is_none_is_a_sentence(value):
    with pytest.raises(InputError, match=r"^seed: expected a whole number from 0 on; found "):
        nfspec.init(PLAN, seed=value)


@pytest.mark.parametrize("size", [(64,), (64, 64, 3), ()])
def test_a_size_of_other_than_two_sides_is_a_sentence(size):
    with pytest.raises(InputError, match=r"^size: expected a side in px, or \(height, width\)"):
        nfspec.count(PLAN, size)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_numpy_integers_are_taken_where_pythons_are(kind):
    assert nfspec.count(PLAN, kind(64)) == nfspec.count(PLAN, 64)
    assert nfspec.count(PLAN, (kind(64), kind(32))) == nfspec.count(PLAN, (64, 32))
    run = nfspec.recipe(PLAN, steps=kind(100), batch=kind(32), accumulation=kind(2))
    assert run == nfspec.recipe(PLAN, steps=100, batch=32, accumulation=2)
    assert {type(n) for n in (run.steps, run.batch, run.accumulation)} == {int}
    params, wanted = nfspec.init(PLAN, seed=kind(3)), nfspec.init(PLAN, seed=3)
    assert all(np.array_equal(params[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "name, door",
    [
        ("rho", lambda v: nfspec.sam(None, rho=v)),
        ("fraction", lambda v: nfspec.sam(None, fraction=v)),
        ("efficiency", lambda v: costs.step(PLAN, TPU, 8, efficiency=v)),
    ],
)
def test_what_is_no_number_is_a_sentence(name, door, value):
    with pytest.raises(InputError, match=rf"^{name}: expected a finite number (from|above) 0"):
        door(value)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"data_format": "NHWC"},
            "data_format: expected one of \"channels_last\", .* found 'NHWC'",
        ),
        ({"data_format": "channel_last"}, 'did you mean "channels_last"'),
        ({"data_format": None}, "data_format: .* found None"),
        ({"taps": 1}, "taps: expected True, False, or a list of names; found 1"),
        ({"folded": "yes"}, "folded: expected True or False; found 'yes'"),
        ({"plain": None}, "plain: expected True or False; found None"),
        (
            {"spec": "nfnet-f0"},
            "spec: expected what nfspec.load or nfspec.resolve returns; found 'nfnet-f0'",
        ),
        ({"backend": None}, 'no backend "None"; expected one of jax'),
        ({"backend": ["jax"]}, "no backend .* expected one of jax"),
    ],
)
def test_arguments_of_compile_are_checked_before_a_framework_is_imported(changes, message):
    with pytest.raises(NfspecError, match=message):
        nfspec.compile(**{"spec": SPEC, "backend": "nowhere", **changes})


@pytest.mark.parametrize("value", [None, "nfnet-f0", SPEC, 1], ids=["none", "name", "spec", "int"])
@pytest.mark.parametrize(
    "door",
    [
        nfspec.count,
        nfspec.recipe,
        nfspec.init,
        nfspec.signal.expected_variance,
        lambda v: nfspec.signal.measure(v, {}, None),
        lambda v: nfspec.agc(v, None),
        lambda v: costs.step(v, TPU, 8),
        lambda v: memory.training_memory(v, 8),
        lambda v: nfspec.weights.check(v, {}),
    ],
    ids=["count", "recipe", "init", "expected", "measure", "agc", "cost", "memory", "weights"],
)
def test_what_is_no_plan_is_a_sentence(door, value):
    with pytest.raises(InputError, match=r"^plan: expected what nfspec.resolve returns; found "):
        door(value)


@pytest.mark.parametrize("value", [None, "nfnet-f0", PLAN, 1])
def test_what_is_no_spec_is_a_sentence(value):
    with pytest.raises(InputError, match=r"^spec: expected what nfspec.load returns; found "):
        nfspec.resolve(value)


@pytest.mark.parametrize("value", [None, 1, True, [], SPEC, b"nfnet-f0", ""])
def test_what_is_no_name_of_a_spec_is_a_sentence(value):
    with pytest.raises(NfspecError):
        nfspec.load(value)


def test_a_value_in_an_error_is_short_and_on_one_line():
    for value in ("x" * 1_000, list(range(1_000)), np.zeros((100, 100)), 10**500, "a\nb", SPEC):
        text = arguments.shown(value)
        assert len(text) < 80 and "\n" not in text
