"""Kernels in parts over four devices of JAX: numbers and bytes of those with whole kernels."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

import jax
from jax.experimental import multihost_utils

import nfspec
import nfspec.backends.jax

if not hasattr(jax, "shard_map"):
    pytest.skip("see docs/versions.md", allow_module_level=True)

from nfspec.backends.kernels.jax_parts import Parts
from nfspec.backends.values import array_of

from .jax_parts import LAYERS
from .small import small_plan

ROOT = Path(__file__).parents[2]
WORLD = 4


def found_in(file, steps):
    """What `jax_parts` writes to a file."""
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.backends.jax_parts", file, str(steps)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_in(tmp_path_factory.mktemp("found") / "found.npz", 20)


def part_of(found, name, way):
    return {key.split("/", 2)[2]: v for key, v in found.items() if key.startswith(f"{name}/{way}/")}


@pytest.mark.slow  # half a minute: compiles six steps for four devices
@pytest.mark.parametrize("name", ["small", "sharp", "narrow"])
def test_steps_are_those_of_whole_kernels(found, name):
    """Within 1e-5 of the largest number of each: sums over devices are rounded in another order,
    and steps of a high rate enlarge that."""
    whole, parts = (part_of(found, name, way) for way in ("whole", "parts"))
    for each in (whole, parts):
        each.pop("bytes")
    assert list(parts) == list(whole)
    assert {"losses", "head.fc.kernel", "0"} < {*whole}
    for key, expected in whole.items():
        assert parts[key].shape == expected.shape
        assert np.abs(parts[key] * 1.0 - expected).max() <= 1e-5 * np.abs(expected).max(), key


@pytest.mark.slow
def test_each_device_keeps_its_part_of_kernels_momentum_and_averages(found):
    """Four devices do not divide the ten classes."""
    shapes = [p.shape for p in small_plan().parameters.values() if len(p.shape) > 1]
    split = [shape[-1] % WORLD == 0 for shape in shapes]
    assert any(split) and not all(split)
    sizes = [np.prod(shape) // (WORLD if s else 1) for shape, s in zip(shapes, split, strict=True)]
    assert found["small/parts/bytes"] == 3 * 4 * sum(sizes)
    assert found["small/whole/bytes"] == 3 * 4 * sum(map(np.prod, shapes))


@pytest.mark.slow
def test_the_loop_on_the_page(found):
    """Four devices divide the twelve classes; gains, biases and clip fractions are whole."""
    assert found["page/part"] < 0.27 * found["page/whole"]
    assert found["page/loss"] == pytest.approx(np.log(12), rel=1e-3)  # the classifier starts at 0


def test_layers(tmp_path):
    """Sums of up to 8 x 7 x 6 numbers are added up in another order: the bound is 16 roundings."""
    found = found_in(tmp_path / "found.npz", 0)
    for name, shape in LAYERS.items():
        whole, parts = (part_of(found, name, way) for way in ("whole", "parts"))
        for key in ("0", "1", "2"):
            bound = 16 * 2**-24 * np.linalg.norm(whole[key])
            assert np.linalg.norm(parts[key] - whole[key]) <= bound, (name, key)
        outputs = shape[-1] if shape[-1] % WORLD else shape[-1] // WORLD
        assert tuple(parts["part 1"]) == (*shape[:-1], outputs)
        assert tuple(whole["part 1"]) == shape
    uneven = [part_of(found, "uneven", way) for way in ("whole", "parts")]
    for key in ("0", "1"):
        whole, parts = (each[key] for each in uneven)
        assert np.linalg.norm(parts - whole) <= 16 * 2**-24 * np.linalg.norm(whole), key


@pytest.mark.parametrize("devices", [[], 2, ["cpu:0"], jax.devices()[:1] * 2, jax.devices()[0]])
def test_devices_that_are_none(devices):
    message = (
        r"^devices: expected a list of devices of JAX, each once; found .*jax\.devices\(\) has"
    )
    with pytest.raises(nfspec.InputError, match=message):
        nfspec.backends.jax.parts(devices)


def test_numbers_of_a_tree_are_whole():
    """A state of an optimizer may have some that are no arrays."""
    spread = nfspec.backends.jax.parts()
    assert spread.in_parts({"rate": 0.1, "kernel": np.ones((2, 4))})["rate"].shape == ()


def test_one_of_several_processes_may_read_what_is_whole(monkeypatch):
    """A program that it started alone would wait for the others."""

    class Whole:
        value = SimpleNamespace(is_fully_addressable=False, is_fully_replicated=True)

        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    monkeypatch.delattr(multihost_utils, "process_allgather")
    assert array_of(Whole()).tolist() == [0, 1, 2]


def test_a_jax_that_is_too_old_is_named(monkeypatch):
    monkeypatch.delattr(jax, "shard_map")
    with pytest.raises(nfspec.BackendError, match=r"^--shard needs JAX 0\.7 or newer; found "):
        Parts(jax.devices())
