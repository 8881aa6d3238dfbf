"""A network in parts over processes of PyTorch: its numbers, its files and its bytes.

This process is the first of them.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from packaging.version import Version

import nfspec
from nfspec.backends.kernels.torch_parts import _processes
from nfspec.backends.parts import spread
from nfspec.backends.training import checkpoints
from nfspec.plan.clipping import ClipRule

from . import parts
from .small import batches, small_plan

if keras.backend.backend() != "torch":
    pytest.skip("of PyTorch", allow_module_level=True)

if Version(version("torch")) < Version("2.7"):
    pytest.skip("see docs/versions.md", allow_module_level=True)

ROOT = Path(__file__).parents[2]


@pytest.fixture(
    scope="module",
    params=[(2, 3), pytest.param((4, 20), marks=pytest.mark.slow)],
    ids=["two processes", "four"],
)
def case(request, tmp_path_factory):
    """Folder, number of processes and of steps, and what they found."""
    world, steps = request.param
    folder = tmp_path_factory.mktemp("parts")
    arguments = [sys.executable, "-m", "tests.backends.parts", folder]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    others = [
        subprocess.Popen([*arguments, *map(str, (rank, world, steps))], cwd=ROOT, env=environment)
        for rank in range(1, world)
    ]
    try:
        found = parts.run(folder, 0, world, steps)
        assert [other.wait(60) for other in others] == [0] * len(others)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return folder, world, steps, found


def assert_near(arrays, expected):
    """Within 1e-5 of the largest number of each: sums over processes are rounded in another order,
    and steps of a high rate enlarge that."""
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].shape == array.shape, name
        assert np.abs(arrays[name] - array).max() <= 1e-5 * np.abs(array).max(), name


def test_own_training_is_that_of_one_process(case):
    folder, _, steps, found = case
    model, losses = parts.trained(0, 1, steps)
    params, ours = found["own"]
    assert ours == pytest.approx(losses, rel=1e-5)
    assert_near(params, nfspec.params_of(model))
    assert_near(found["averages"], nfspec.params_of(model, average=True))
    logits = np.asarray(model(batches(1)[0], training=False).detach())
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    # One process goes on from the checkpoint, which has every tensor whole.
    again, _ = parts.trained(0, 1, 1)
    path = checkpoints.path_of(folder, steps)
    checkpoints.restore(path, again, again.optimizer, parts.DIGEST)
    kept, expected = (
        {v.path: v.numpy() for v in each.optimizer.variables if v.dtype == "float32"}
        for each in (again, model)
    )
    assert_near(dict(enumerate(kept.values())), dict(enumerate(expected.values())))


@pytest.mark.parametrize("way", parts.WAYS)
def test_a_loop_of_somebody_elses_is_that_of_one_process(case, way):
    _, _, steps, found = case
    model, losses, fractions = parts.looped(0, 1, steps)
    params, ours, clipped = found[way]
    assert ours == pytest.approx(losses, rel=1e-5)
    assert_near(params, nfspec.params_of(model))
    assert clipped == pytest.approx(fractions, rel=1e-6)
    assert any(0.0 < fraction < 1.0 for fraction in clipped.values())


def test_each_process_keeps_its_part_of_parameters_momentum_and_averages(case):
    """And of the sums over micro-batches: kernels whose outputs divide, four times in float32."""
    _, world, _, found = case
    shapes = [p.shape for p in small_plan().parameters.values() if len(p.shape) > 1]
    split = [shape[-1] % world == 0 for shape in shapes]
    assert any(split)
    assert all(split) == (world == 2)  # four do not divide the ten classes
    sizes = [np.prod(shape) // (world if s else 1) for shape, s in zip(shapes, split, strict=True)]
    assert found["bytes"] == 4 * 4 * sum(sizes)


def test_a_pytorch_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda module, *, mesh=None: module)
    with pytest.raises(nfspec.BackendError, match=r"^--shard needs PyTorch 2\.7 or newer; found "):
        spread(None, None)


def test_units_are_local_where_processes_have_as_many_whole_ones():
    """Stand-ins for DTensors, in parts over two processes by an axis."""

    def tensor(shape, *axes):
        placements = tuple(
            SimpleNamespace(
                dim=axis,
                is_shard=lambda a=axis: a is not None,
                is_replicate=lambda a=axis: a is None,
            )
            for axis in axes
        )
        mesh = SimpleNamespace(size=lambda: 2)
        return SimpleNamespace(
            full_tensor=None, shape=shape, placements=placements, device_mesh=mesh
        )

    def processes(shape, axes, *parts):
        x = tensor(shape, *parts)
        return _processes(x, x, ClipRule(axes, 1, 0.1, 1e-3))

    assert _processes(np.zeros(3), np.zeros(3), ClipRule(None, 1, 0.1, 1e-3)) == 1
    assert processes((4,), None, None) == 1  # whole in each
    assert processes((3, 6), (0,), 1) == 2
    assert processes((3, 5), (0,), 1) == 0  # one process has more of them
    assert processes((3, 6), (0,), 0) == processes((6,), None, 0) == 0  # units in two
    assert processes((3, 6), (0,), None, 1) == 0  # over two axes of processes
