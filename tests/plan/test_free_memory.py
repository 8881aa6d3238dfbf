"""Networks larger than the memory are refused before any of it is taken; others are not."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec import reference
from nfspec.cli import app
from nfspec.plan import free_memory
from nfspec.plan.counting import parameter_count

LARGE = """\
schema = "nfspec/1"
name = "large"
source = "a test"
extends = "nfnet-nano"
[stages]
depth = [1, 1, 1, 2]
width = [16, 32, 48, 32768]
group_width = [8, 8, 8, 16384]
"""
GIB = 2**30
REFUSED = r"^large: to [a-z0-9 ]+ this network of 15,\d{3},\d{3},\d{3} parameters takes at least "
IMAGES = np.zeros((1, 32, 32, 3), np.float32)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 16 GiB, whatever this one has."""
    monkeypatch.setattr(free_memory, "_of_machine", lambda: 16 * GIB)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "large.toml"
    path.write_text(LARGE)
    return str(path)


@pytest.fixture
def plan(file):
    return nfspec.resolve(nfspec.load(file))


@pytest.fixture
def undrawn(monkeypatch):
    """Nothing is drawn, which would take minutes; a refusal comes before."""

    def drawn(seed, name):
        raise AssertionError(f"{name} is drawn")

    monkeypatch.setattr("nfspec.plan.initialise.generator", drawn)


def run(*arguments):
    """A command's exit status and what it wrote to stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    "door",
    [
        nfspec.init,
        lambda plan: nfspec.fold(plan, {}),
        lambda plan: reference.forward(plan, {}, IMAGES),
        lambda plan: reference.loss_and_gradients(plan, {}, IMAGES, np.ones((1, 1000))),
        lambda plan: nfspec.signal.measure(plan, {}, IMAGES),
        lambda plan: nfspec.signal.noise(plan, 1, 32),
    ],
    ids=["init", "fold", "forward", "gradients", "signal", "noise"],
)
def test_a_network_larger_than_the_memory_is_refused_at_each_door(plan, door, undrawn):
    with pytest.raises(nfspec.InputError, match=REFUSED):
        door(plan)


@pytest.mark.parametrize(
    "command",
    [
        ("compare",),
        ("conform", "--properties", "NET-01"),
        ("train", "digits", "--backend", "torch"),
        ("bench", "--backends", "torch"),
        ("evaluate", "digits", "--weights", "x.safetensors"),
        ("predict", "x.jpg", "--weights", "x.safetensors"),
        ("embed", "x.jpg", "--weights", "x.safetensors", "--out", "x.npz"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_refuses_it_in_a_sentence_and_leaves_nothing(
    file, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    status, said = run(command[0], file, *command[1:])
    assert status == 2 and said.count("\n") == 1, said
    assert " GB of memory, and 17.2 GB are free; take a machine with more, or a smaller " in said
    assert [path.name for path in tmp_path.iterdir()] == ["large.toml"]


def test_convert_refuses_it_before_it_reads_a_file(file, tmp_path):
    source = tmp_path / "x.npz"
    source.write_bytes(b"not read")
    status, said = run("convert", source, tmp_path / "y.safetensors", "--variant", file)
    assert (status, "to convert the weights of this network" in said) == (2, True)


def test_what_allocates_nothing_takes_it(file, plan, undrawn):
    assert nfspec.count(plan).parameters == parameter_count(plan) > 10**10
    for command in ("show", "check", "agc"):
        assert run(command, file) == (0, "")


def test_what_fits_is_taken_and_what_is_a_byte_short_is_not(monkeypatch, plan):
    needed = 4 * parameter_count(plan)
    monkeypatch.setattr(free_memory, "_of_machine", lambda: needed)
    free_memory.require_free_memory(plan, "draw the weights of", 1)
    monkeypatch.setattr(free_memory, "_of_machine", lambda: needed - 1)
    with pytest.raises(nfspec.InputError, match=f"takes at least {needed / 1e9:,.1f} GB of memory"):
        free_memory.require_free_memory(plan, "draw the weights of", 1)


def test_all_networks_that_come_with_nfspec_fit_eight_gigabytes(monkeypatch):
    monkeypatch.setattr(free_memory, "_of_machine", lambda: 8 * GIB)
    for name in ("nfnet-f7+", "nf-resnet-600"):  # the largest
        free_memory.require_free_memory(nfspec.resolve(nfspec.load(name)), "compile", 2)


def test_large_images_are_refused_before_they_are_evaluated(monkeypatch):
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    params = nfspec.init(plan)
    monkeypatch.setattr(free_memory, "_of_machine", lambda: 2**20)
    images = np.zeros((1, 64, 64, 3), np.float32)
    with pytest.raises(nfspec.InputError, match=r"evaluate an image of 64 x 64 px in float64"):
        reference.forward(plan, params, images)


def test_limits_of_address_space_count():
    """Asked in a process of its own, whose limit leaves about as much as it was set to."""
    program = (
        "import resource\n"
        "from nfspec.plan import free_memory\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({4 * GIB}, {4 * GIB}))\n"
        "print(min(free_memory._of_limits()))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert GIB < int(said) < 4 * GIB
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert len(free_memory._of_limits()) <= 1  # that of data, if any


V2 = {"a/memory.max": "1000", "a/memory.current": "700", "a/memory.stat": "inactive_file 200\n"}
V1 = {
    "memory/a/memory.limit_in_bytes": "1000",
    "memory/a/memory.usage_in_bytes": "700",
    "memory/a/memory.stat": "inactive_file 5\ntotal_inactive_file 200\n",
    "memory/memory.limit_in_bytes": str(2**63 - 4096),  # none
    "memory/memory.usage_in_bytes": "9",
}


@pytest.mark.parametrize(
    ("files", "own", "left"),
    [
        (V2, "0::/a/b\n", [500]),
        (V2 | {"a/b/memory.max": "max", "a/b/memory.current": "3"}, "0::/a/b\n", [500]),
        (V2 | {"a/b/memory.max": "90", "a/b/memory.current": "30"}, "0::/a/b\n", [60, 500]),
        (V1, "5:cpu:/a\n4:memory:/a\n0::/\n", [500]),
        # In a container the path is the host's, and the root is the container's group.
        ({"memory.max": "50", "memory.current": "20"}, "0::/host/x\n", [30]),
        ({}, "0::/\nnot a line of it\n", []),
    ],
)
def test_limits_of_control_groups_count(tmp_path, files, own, left):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    assert free_memory._of_groups(tmp_path / "groups", tmp_path / "own") == left


def test_no_file_of_limits_is_no_limit(tmp_path):
    assert free_memory._of_groups(tmp_path, tmp_path / "none") == []
    assert free_memory._table(tmp_path / "none") == {}
