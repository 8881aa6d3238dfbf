"""Training on two devices, and on one, through the command line.

JAX and TensorFlow on two virtual devices of this machine, PyTorch in two processes.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import psutil
import pytest

import nfspec
from nfspec.backends.training import devices as engines
from nfspec.weights.store import read_all

from tiny import STILL, log_of, write_images, write_spec

pytestmark = pytest.mark.slow  # minutes of starting processes

STEPS = 4
SAM = "sam_rho = 0.05\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, and specs without dropping, whose draws differ between devices."""
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "data")
    write_spec(folder, STILL)
    (folder / "sam").mkdir()
    write_spec(folder / "sam", STILL + SAM)
    return folder


def command(place, out, *options, spec="tiny.toml"):
    arguments = [place / spec, place / "data", "--backend", keras.backend.backend()]
    arguments += ["--out", out, "--stop-at", STEPS, *options]
    return [sys.executable, "-m", "nfspec", "train", *map(str, arguments)]


def start(*arguments, env=(), **options):
    fixed = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = {**os.environ, **fixed, **dict(env)}
    return subprocess.Popen(
        command(*arguments, **options),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process):
    stdout, stderr = process.communicate(timeout=240)
    return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def trained(place, backend_name):
    """The folder of a training on one device, on two, and on two that share the parameters."""
    options = {"one": (), "two": ("--devices", 2)}
    if backend_name != "tensorflow":
        options["shared"] = ("--devices", 2, "--shard")
    running = {name: start(place, place / name, *each) for name, each in options.items()}
    for process in running.values():
        status, _, stderr = ended(process)
        assert status == 0, stderr
    return {name: place / name for name in running}


@pytest.fixture(scope="module")
def backend_name():
    return keras.backend.backend()


def steps_of(folder):
    return [entry for entry in log_of(folder) if "loss" in entry]


def kinds(trained):
    return [name for name in trained if name != "one"]


def test_losses_on_two_devices_are_those_on_one(trained):
    """Each takes half of the batch, and what is summed in another order is off by roundings: the
    bound of losses under `fit` (test_training.py)."""
    expected = steps_of(trained["one"])
    assert len(expected) == STEPS
    assert expected[-1]["rate"] > 0
    for name in kinds(trained):
        steps = steps_of(trained[name])
        losses = [entry["loss"] for entry in expected]
        assert [entry["loss"] for entry in steps] == pytest.approx(losses, rel=1e-5), name
        for ours, theirs in zip(steps, expected, strict=True):
            assert (ours["step"], ours["epoch"]) == (theirs["step"], theirs["epoch"])
            assert ours["rate"] == theirs["rate"]
            assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)
            assert ours["clip_fraction"] == pytest.approx(theirs["clip_fraction"], rel=1e-6)


def test_checkpoints_and_evaluations_are_written_once_and_whole(trained):
    """The same tensors as on one device, of the whole shapes; and one line for each evaluation."""
    for name in kinds(trained):
        for step in (3, 4):
            file = f"checkpoints/step-{step:08d}.safetensors"
            arrays, facts = read_all(trained[name] / file)
            expected, others = read_all(trained["one"] / file)
            assert facts["digest"] == others["digest"]
            assert {n: a.shape for n, a in arrays.items()} == {
                n: a.shape for n, a in expected.items()
            }
        evaluations = [entry["step"] for entry in log_of(trained[name]) if "top1" in entry]
        assert evaluations == [3, 4]


def test_so_many_devices_go_on_where_others_stopped(trained, place, backend_name):
    ways = [("one", ("--devices", 2), 5)]
    if backend_name != "tensorflow":
        ways += [("one", ("--devices", 2, "--shard"), 6), ("shared", (), 5)]
    for name, options, last in ways:
        status, _, stderr = ended(
            start(place, trained[name], *options, "--resume", "--stop-at", last)
        )
        assert status == 0, stderr
        assert f"going on after step {last - 1} of 12" in stderr
        assert [entry["step"] for entry in steps_of(trained[name])] == [*range(1, last + 1)]


def test_two_hosts_keep_kernels_in_parts(trained, place, tmp_path, backend_name):
    """Two processes of two devices; the first writes what two devices would."""
    if backend_name != "jax":
        pytest.skip("where one process has several devices")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    hosts = [
        start(
            place,
            tmp_path / "run",
            *("--devices", 4, "--shard"),
            env={
                f"KERAS_DISTRIBUTION_{name}": value
                for name, value in zip(names, (f"localhost:{port}", "2", str(rank)), strict=True)
            },
        )
        for rank in range(2)
    ]
    for host in hosts:
        status, _, stderr = ended(host)
        assert status == 0, stderr
    expected = [entry["loss"] for entry in steps_of(trained["one"])[:STEPS]]
    losses = [entry["loss"] for entry in steps_of(tmp_path / "run")]
    assert losses == pytest.approx(expected, rel=1e-5)
    (arrays, _), (others, _) = (
        read_all(folder / f"checkpoints/step-{STEPS:08d}.safetensors")
        for folder in (tmp_path / "run", trained["two"])
    )
    assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in others.items()}


@pytest.mark.parametrize(
    ("name", "value", "count", "message"),
    [
        ("NUM_PROCESSES", "two", 2, "NUM_PROCESSES: expected a number of processes; found 'two'; "),
        ("NUM_PROCESSES", "0", 2, "NUM_PROCESSES: expected a number of processes; found '0'; see"),
        ("NUM_PROCESSES", None, 2, "NUM_PROCESSES: expected a number of processes; found none; s"),
        ("PROCESS_ID", None, 2, "PROCESS_ID: expected a number from 0 to 1; found none; see docs"),
        ("PROCESS_ID", "2", 2, "PROCESS_ID: expected a number from 0 to 1; found '2'; see docs/"),
        ("JOB_ADDRESSES", "host0", 2, "JOB_ADDRESSES: expected HOST:PORT; found 'host0'; see docs"),
        ("PROCESS_ID", "0", 3, "3 devices do not divide among 2 processes; all processes' device"),
        ("PROCESS_ID", "0", 1, "1 devices do not divide among 2 processes; all processes' device"),
    ],
)
def test_variables_of_several_hosts(backend_name, monkeypatch, name, value, count, message):
    if backend_name != "jax":
        pytest.skip("of JAX")
    variables = {"JOB_ADDRESSES": "localhost:1", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}
    for each, text in (variables | {name: value}).items():
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{each}", raising=False)
        if text is not None:
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{each}", text)
    with pytest.raises(nfspec.BackendError, match=f"^(KERAS_DISTRIBUTION_)?{re.escape(message)}"):
        engines.devices(count, shard=True)


def test_devices_of_all_hosts_are_counted(backend_name, monkeypatch):
    """The first so many would be those of the first hosts alone."""
    if backend_name != "jax":
        pytest.skip("of JAX")
    for name, value in (("JOB_ADDRESSES", "a:1"), ("NUM_PROCESSES", "2"), ("PROCESS_ID", "0")):
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    monkeypatch.setattr(keras.distribution, "initialize", lambda: None)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"] * 4)
    message = "^2 devices asked for; the 2 processes have 4 together, and all of them have to be"
    with pytest.raises(nfspec.BackendError, match=message):
        engines.devices(2)


def test_too_few_devices_are_counted(backend_name, monkeypatch):
    """A framework that is set up already has one device."""
    if backend_name == "torch":
        monkeypatch.delenv("RANK", raising=False)
        with pytest.raises(nfspec.BackendError, match="torch needs one process for each device"):
            engines.devices(2)
        for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(nfspec.BackendError, match="start the processes by torchrun, or unset"):
            engines.devices(2)
        return
    if backend_name == "jax":
        import jax

        jax.devices()
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
        message = "2 devices asked for; found 1: cpu:0"
    else:
        import tensorflow as tf

        tf.config.list_logical_devices()
        message = "2 devices asked for; found 1: /device:CPU:0"
    with pytest.raises(nfspec.BackendError, match=f"^{re.escape(message)}$"):
        engines.devices(2)


def test_one_device_needs_nothing():
    engine = engines.devices(1)
    assert (engine.count, engine.rank, engine.world) == (1, 0, 1)


def test_tensorflow_spreads_no_parameters(backend_name):
    if backend_name != "tensorflow":
        pytest.skip("trained that way above")
    message = "^tensorflow cannot shard parameters; jax and torch can$"
    with pytest.raises(nfspec.BackendError, match=message):
        engines.devices(2, shard=True)


def test_memory_is_divided_among_devices():
    """The devices of a machine without accelerators share its memory."""
    one, four = engines.memory(1), engines.memory(4)
    assert 2**20 < four < one
    assert one == pytest.approx(4 * four, rel=0.2)  # others take and give back some in between


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--devices", 2, "--batch", 7), r"^--batch: 7 images do not divide among 2 devices$"),
        (
            ("--devices", 2, "--accumulation", 8),
            r"^--batch: 1 images do not divide among 2 devices$",
        ),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(place, tmp_path, options, message):
    status, stdout, stderr = ended(start(place, tmp_path / "run", *options))
    assert (status, stdout) == (2, "")
    assert re.search(message, stderr, re.MULTILINE), stderr
    assert not (tmp_path / "run").exists()


def test_what_one_of_several_devices_refuses_is_a_message(place, tmp_path, backend_name):
    """Exit status 2 and one message, though on PyTorch there are several processes."""
    options = ("--devices", 2, "--freeze", "steam.*")
    status, stdout, stderr = ended(start(place, tmp_path / "run", *options))
    assert stderr.count('no parameter is called "steam.*"') == 1
    assert "Traceback" not in stderr
    assert (status, stdout) == (2, "")


def test_sharding_is_refused_with_one_message(place, tmp_path, backend_name):
    if backend_name == "jax":
        pytest.skip("JAX can")
    message = {
        "torch": "--shard: torch cannot compute the ascent of SAM on parameters in parts",
        "tensorflow": "--shard: tensorflow cannot shard parameters; jax and torch can",
    }[backend_name]
    options = ("--devices", 2, "--shard")
    status, stdout, stderr = ended(start(place, tmp_path / "run", *options, spec="sam/tiny.toml"))
    assert stderr.count(message) == 1
    assert "Traceback" not in stderr
    assert (status, stdout) == (2, "")


def test_sharpness_aware_minimisation_on_two_devices(place, tmp_path, backend_name):
    """Each process ascends on its own half, so that losses are not those of one device."""
    if backend_name != "torch":
        pytest.skip(
            "for where gradients are averaged in the backward pass, and ascents must not be"
        )
    status, _, stderr = ended(start(place, tmp_path / "run", "--devices", 2, spec="sam/tiny.toml"))
    assert status == 0, stderr
    losses = [entry["loss"] for entry in steps_of(tmp_path / "run")]
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()


def test_processes_are_stopped_by_whoever_stops_the_command(place, tmp_path, backend_name):
    """Ctrl-C reaches all processes of a terminal, a scheduler's SIGTERM the first alone: either
    ends all of them after the same step, with a checkpoint."""
    if backend_name != "torch":
        pytest.skip("one process, as of one device")
    out = tmp_path / "run"
    ways = ((signal.SIGINT, os.killpg, ()), (signal.SIGTERM, os.kill, ("--resume", "--shard")))
    for number, send, resume in ways:
        process = start(place, out, "--devices", 2, "--epochs", 200, "--stop-at", 0, *resume)
        before, began = len(steps_of(out)) if resume else 0, time.monotonic()
        while not (out / "log.jsonl").exists() or len(steps_of(out)) < before + 4:
            assert process.poll() is None and time.monotonic() - began < 60
            time.sleep(0.02)
        others = psutil.Process(process.pid).children(recursive=True)
        send(process.pid, number)
        try:
            _, stderr = process.communicate(timeout=15)  # when all that write there have ended
        finally:
            for other in others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    other.kill()
            process.communicate()
        assert process.returncode == 130
        last = steps_of(out)[-1]["step"]
        assert (out / "checkpoints" / f"step-{last:08d}.safetensors").exists()
        assert f"stopped after step {last}; go on with --resume" in stderr
        assert "Traceback" not in stderr


def test_no_process_draws_what_another_drew():
    from nfspec.backends.training.devices import seed_of

    seeds = [seed_of(7, rank) for rank in range(16)]
    assert seeds[0] == 7
    # Keras adds the count of draws to a seed: a million of them overlap with no other's.
    assert np.diff(np.sort(seeds)).min() > 1_000_000
