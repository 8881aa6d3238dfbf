"""One network in each spelling of trainers: container, prefix, dtype, with a head or without."""

import argparse

import numpy as np
import pytest
import safetensors.torch
import torch

import nfspec
from nfspec.weights import from_timm, to_timm
from nfspec.weights.checking import NoClassifier
from nfspec.weights.kinds import Kind, read_fitting

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "model._orig_mod.",
    "module.module.",
    "net.backbone.",
]


def by_torch(state, path, older=False):
    """A trainer's checkpoint, with its options and the optimizer's state."""
    content = {"epoch": 7, "optimizer": {"state": {0: {"step": torch.tensor(1)}}}}
    content |= {"args": argparse.Namespace(lr=0.1, opt="sgd"), "state_dict": state}
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    return path


def by_safetensors(state, path):
    safetensors.torch.save_file(state, path)
    return path


CONTAINERS = {
    "pth": lambda state, folder: by_torch(state, folder / "x.pth"),
    "older pth": lambda state, folder: by_torch(state, folder / "x.pth", older=True),
    "pt": lambda state, folder: by_torch(state, folder / "x.pt"),
    "bin": lambda state, folder: by_torch(state, folder / "x.bin"),
    "ckpt": lambda state, folder: by_torch(state, folder / "x.ckpt"),
    "pth.tar": lambda state, folder: by_torch(state, folder / "x.pth.tar"),
    "safetensors": lambda state, folder: by_safetensors(state, folder / "x.safetensors"),
    "dict": lambda state, folder: state,
    "averages": lambda state, folder: {"state_dict": {"x": torch.ones(1)}, "state_dict_ema": state},
    "model": lambda state, folder: {"model": state, "model_ema": None},
}


def is_slow(container):
    return container not in (CONTAINERS["dict"], CONTAINERS["safetensors"])


def spelt(plan, params, prefix, dtype, head):
    state = {
        prefix + name: torch.tensor(value).bfloat16().to(dtype)
        for name, value in to_timm(plan, params).items()
        if head or not name.startswith("head.")
    }
    return state | ({"n_averaged": torch.tensor(3)} if "module." in prefix else {})


@pytest.mark.parametrize("head", [True, False], ids=["head", "no head"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_every_spelling_is_read(plan, params, tmp_path, same_bits, container, dtype, head):
    expected = {k: v for k, v in params.items() if head or not k.startswith("head.")}
    for name, value in expected.items():
        expected[name] = torch.tensor(value).bfloat16().to(dtype).float().numpy()
    # PyTorch's files take longest, and are read alike but for the name.
    part = slice(DTYPES.index(dtype) + 4 * head, None, 8) if is_slow(container) else slice(None)
    for prefix in PREFIXES[part]:
        source = container(spelt(plan, params, prefix, dtype, head), tmp_path)
        if not head:
            with pytest.raises(NoClassifier) as error:
                from_timm(source, plan)
            assert "has no classifier" in str(error.value)
            assert "own_shapes=True" in str(error.value) and "--init" in str(error.value)
        same_bits(from_timm(source, plan, own_shapes=not head), expected)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_classes_and_channels_of_their_own_are_read(plan, params, tmp_path, container):
    rng = np.random.default_rng(1)
    own = {"head.fc.weight": (7, 96), "head.fc.bias": (7,), "stem.conv1.weight": (16, 5, 3, 3)}
    own = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in own.items()}
    state = spelt(plan, params, "module.", torch.float32, True)
    assert all(state[f"module.{name}"].ndim == value.ndim for name, value in own.items())
    state |= {f"module.{name}": torch.tensor(value) for name, value in own.items()}
    actual = from_timm(container(state, tmp_path), plan, own_shapes=True)
    assert list(actual) == list(plan.parameters)
    np.testing.assert_array_equal(actual["head.fc.kernel"], own["head.fc.weight"].T)
    np.testing.assert_array_equal(actual["head.fc.bias"], own["head.fc.bias"])
    kernel = own["stem.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(actual["stem.conv0.kernel"], kernel)


@pytest.mark.parametrize("container", ["pth", "safetensors"])
def test_training_starts_from_weights_without_a_classifier(plan, params, tmp_path, container):
    state = spelt(plan, params, "module.", torch.bfloat16, False)
    path = CONTAINERS[container](state, tmp_path)
    actual = read_fitting(path, plan, Kind.TIMM, seed=3).params
    fresh = nfspec.init(plan, 3)
    for name, value in actual.items():
        new = name.startswith("head.")
        expected = fresh[name] if new else torch.tensor(params[name]).bfloat16().float().numpy()
        np.testing.assert_array_equal(value, expected, strict=True)


def test_more_than_the_classifier_missing_is_listed(plan, params, complaint):
    state = spelt(plan, params, "", torch.float32, False)
    del state["final_conv.gain"]
    assert complaint(from_timm, state, plan).startswith("3 tensors do not fit nfnet-tiny:\n")
