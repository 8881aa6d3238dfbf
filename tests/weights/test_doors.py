"""One rule for every function that takes weights: what an array is, and what is refused."""

import pickle
import sys

import numpy as np
import pytest
import torch

import nfspec
from nfspec.weights import check, from_deepmind, from_timm, load, save, to_deepmind, to_timm
from nfspec.weights.deepmind import names
from nfspec.weights.timm import names as timm_names

from golden import DATA

LAST = "head.fc.bias"  # (10,) in the tiny network
SKIP = "stages.0.blocks.0.skip_gain"  # ()


def tree(plan, params):
    """Canonical weights as the original's {module: {name: array}}."""
    actual = {}
    for name, (module, leaf) in names(plan).items():
        actual.setdefault(module, {})[leaf] = params[name]
    return actual


def theirs(plan, params):
    """Canonical weights under timm's names, two of them as they are given."""
    whole = {
        name: np.zeros(parameter.shape, np.float32)
        if np.asarray(params[name]).dtype.names
        else np.asarray(params[name], np.float32)
        for name, parameter in plan.parameters.items()
    }
    places = timm_names(plan)
    return to_timm(plan, whole) | {places[name]: params[name] for name in (LAST, SKIP)}


def saved(plan, params, folder):
    save(folder / "w.safetensors", plan, params)
    return load(folder / "w.safetensors", plan)


def pickled(plan, params, folder):
    to_deepmind(folder / "w.npz", plan, params)
    return from_deepmind(folder / "w.npz", plan)


def compiled(plan, params, _):
    spec = nfspec.load(DATA / "nfnet_tiny.toml")
    # Another test may have chosen the framework of the process.
    chosen = sys.modules["keras"].backend.backend() if "keras" in sys.modules else "torch"
    return nfspec.params_of(nfspec.compile(spec, backend=chosen, params=params))


DOORS = {
    "check": lambda plan, params, _: check(plan, params),
    "save": saved,
    "to_deepmind": pickled,
    "to_timm": lambda plan, params, _: from_timm(to_timm(plan, params), plan),
    "from_timm": lambda plan, params, _: from_timm(theirs(plan, params), plan),
    "from_deepmind": lambda plan, params, _: from_deepmind(tree(plan, params), plan),
    "fold": lambda plan, params, _: nfspec.fold(plan, params).original_params,
    "compile": compiled,
}


class Subclass(np.ndarray):
    pass


def other(name, value):
    return lambda params: params | {name: value(params[name])}


REFUSED = {
    "masked": (other(LAST, lambda a: np.ma.masked_array(a, a > 0)), "whose mask would be lost"),
    "nothing masked": (other(LAST, np.ma.masked_array), "whose mask would be lost"),
    "masked scalar": (other(SKIP, lambda a: np.ma.masked), "whose mask would be lost"),
    "subclass": (other(LAST, lambda a: a.view(Subclass)), "Subclass, expected a plain array"),
    "objects": (other(LAST, lambda a: a.astype(object)), "object, expected float32"),
    "records": (other(LAST, lambda a: np.zeros(10, "f4,f4")), "void64, expected float32"),
    "record array": (other(LAST, lambda a: np.rec.array(a)), "expected a plain array"),
    "text": (other(LAST, lambda a: a.astype(str)), "expected float32"),
    "integers": (other(SKIP, lambda a: np.int32(1)), "int32, expected float32"),
    "a float": (other(SKIP, lambda a: 1.0), "float, expected a"),
}
TAKEN = {
    "scalars": lambda params: params | {SKIP: params[SKIP][()]},
    "an average": lambda params: {k: (params[k] + params[k]) / 2 for k in params},
    "big-endian": lambda params: {k: v.astype(">f4") for k, v in params.items()},
    "big-endian scalar": lambda params: params | {SKIP: params[SKIP].astype(">f4")},
    "read-only": lambda params: {k: np.broadcast_to(v, v.shape) for k, v in params.items()},
    "strided": lambda params: {
        k: np.repeat(v, 2, axis=-1)[..., ::2] if v.ndim else v for k, v in params.items()
    },
    "columns first": lambda params: {
        k: np.asfortranarray(v) if v.ndim else v for k, v in params.items()
    },
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_would_lose_something_are_refused(
    plan, params, complaint, tmp_path, door, change, reason
):
    message = complaint(door, plan, change(params), tmp_path)
    assert message.startswith("1 tensor does not fit nfnet-tiny:\n  ")
    assert reason in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("change", TAKEN.values(), ids=TAKEN)
def test_arrays_of_any_layout_are_taken_to_the_bit(plan, params, tmp_path, same_bits, door, change):
    actual = door(plan, change(params), tmp_path)
    same_bits(actual, params)
    assert all(type(value) is np.ndarray and value.dtype.isnative for value in actual.values())


def test_a_matrix_is_refused(plan, params, complaint):
    with pytest.warns(PendingDeprecationWarning):
        bad = params | {"head.fc.kernel": np.matrix(params["head.fc.kernel"])}
    for door in (check, nfspec.fold):
        assert "matrix, expected a plain array" in complaint(door, plan, bad)


def test_a_mapped_file_is_an_array(plan, params, tmp_path, same_bits):
    np.save(tmp_path / "w.npy", params[LAST])
    mapped = params | {LAST: np.load(tmp_path / "w.npy", mmap_mode="r")}
    same_bits(check(plan, mapped), params)


def test_the_reference_refuses_and_takes_the_same(plan, params, complaint):
    image = np.zeros((1, 32, 32, 3))

    def forward(plan, params):
        return nfspec.reference.forward(plan, params, image)["logits"]

    expected = forward(plan, params)
    for layout in ("scalars", "an average", "big-endian", "big-endian scalar"):
        np.testing.assert_array_equal(forward(plan, TAKEN[layout](params)), expected)
    for reason in ("masked", "nothing masked", "masked scalar", "subclass", "objects", "records"):
        change, _ = REFUSED[reason]
        assert complaint(forward, plan, change(params)).startswith("1 tensor does not fit")


@pytest.mark.parametrize("key", [3, 10**5000, None, ("a",)], ids=["int", "long", "None", "tuple"])
@pytest.mark.parametrize("door", [check, from_timm])
def test_names_that_are_no_text_are_refused(plan, params, complaint, door, key):
    first, second = (door, plan, params | {key: 1}), (door, params | {key: 1}, plan)
    message = complaint(*(first if door is check else second))
    assert message == f"expected names that are text, found {type(key).__name__}"


# names and shapes are compared before a value is converted


class Counting:
    """A tensor that says its shape and counts how often it is read."""

    dtype = np.dtype(np.float64)

    def __init__(self, shape):
        self.shape, self.reads = shape, 0

    def __array__(self, *_, **__):
        self.reads += 1
        return np.zeros(self.shape)


def test_nothing_is_converted_for_weights_that_do_not_fit(plan, params):
    huge = Counting((10,))
    for source, read in (({"a": huge}, from_timm), ({"m": {"a": huge}}, from_deepmind)):
        with pytest.raises(nfspec.WeightError, match="do not fit"):
            read(source, plan)
    state = to_timm(plan, params)
    with pytest.raises(nfspec.WeightError, match="1 tensor does not fit"):
        from_timm(state | {"head.fc.bias": huge, "x": np.zeros(1, np.float32)}, plan)
    assert huge.reads == 0
    from_timm(state | {"head.fc.bias": huge}, plan)
    assert huge.reads == 1


def test_one_array_under_many_names_and_expanded_tensors_take_no_memory(plan, tmp_path):
    """8 TB if they were converted."""
    wide = torch.zeros((1, 1), dtype=torch.bfloat16).expand(10**6, 10**6)
    path = tmp_path / "w.pth"
    torch.save({f"x{i}.y": wide for i in range(4)}, path)
    for source in ({"a.b": wide, "c.d": wide}, path):
        with pytest.raises(nfspec.WeightError, match=r"13[35] tensors do not fit"):
            from_timm(source, plan)


def test_an_array_under_many_names_in_a_pickle_is_not_converted(plan, tmp_path, monkeypatch):
    array = np.zeros(1000)
    (tmp_path / "w.npz").write_bytes(pickle.dumps({"m": {f"x{i}": array for i in range(3000)}}))
    monkeypatch.setattr("nfspec.weights.arrays.as_float32", lambda value: pytest.fail("converted"))
    with pytest.raises(nfspec.WeightError, match="do not fit"):
        from_deepmind(tmp_path / "w.npz", plan)
