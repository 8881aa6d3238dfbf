"""Ends of `nfspec train` before its last step: full disks and memories, signals, divergence."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import nfspec
from nfspec.cost.memory import USABLE, training_bytes

from served import AT_STEP, ENVIRONMENT, INTERRUPT, assert_refused
from tiny import FILES, STEPS, assert_same_bits, checkpoints, log_of, snapshot


def test_a_disk_without_room_for_checkpoints(train, tmp_path):
    """17,707 parameters, three copies of each in a checkpoint: see what the message says."""
    before = "import shutil, types\n"
    before += "patch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free={}))"
    result = train("--out", tmp_path / "run", before=before.format(50_000))
    assert_refused(result, r"/run: \S+ k?B are needed there for checkpoints .* 50\S* kB are free; ")
    assert snapshot(tmp_path) == {}
    result = train("--out", tmp_path / "run", "--stop-at", 1, before=before.format(10**8))
    assert result.exit_code == 0, result.stderr


LIMIT = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, most))
"""


@pytest.mark.parametrize(
    ("full", "newest"), [("a checkpoint", 5), ("the weights", 5), ("the log", 6)]
)
def test_a_disk_that_is_full_while_it_trains(train, finished, stopped, full, newest):
    """Existing files stay whole; with room, the training goes on and ends in the same bits."""
    log, spec = stopped / "log.jsonl", stopped / "spec.toml"
    if full == "the log":  # in the middle of the line of step 8
        limit = LIMIT.format(limit=f"__import__('os').stat({str(log)!r}).st_size + 50")
        before = AT_STEP.format(step=3, action=f"exec({limit!r})")
    elif full == "the weights":
        sizes = [file.stat().st_size for file in (log, spec)]
        before = LIMIT.format(limit=max(sizes) + 1_000)
    else:
        before = LIMIT.format(limit=checkpoints_file(stopped, 5).stat().st_size - 1)
    had = snapshot(stopped / "checkpoints")
    try:
        result = train("--out", stopped, "--resume", before=before)
    finally:
        train("--help", before=LIMIT.format(limit="most"))
    assert_refused(result, "File too large")
    file = checkpoints_file(stopped, newest)
    assert result.stderr.endswith(f"{file} is whole; --resume goes on from there\n")
    assert checkpoints(stopped)[-1] == newest
    assert {name: snapshot(stopped / "checkpoints")[name] for name in had} == had
    assert not list(stopped.rglob(".*.tmp"))
    assert (full == "the log") != log.read_bytes().endswith(b"\n")
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert_same_bits(stopped, finished[0], STEPS)


def checkpoints_file(folder, step):
    return folder / "checkpoints" / f"step-{step:08d}.safetensors"


MEMORY = """
from nfspec.backends.training import devices
patch.setattr(devices, "memory", lambda count: {bytes})
"""


def test_memory_that_does_not_suffice_for_the_batch_but_for_parts_of_it(train, place, tmp_path):
    """The advice is such that the training starts with it."""
    plan = nfspec.resolve(nfspec.load(place / "tiny.toml"))
    enough = training_bytes(plan, 2, 16, "float32", accumulate=True) / USABLE
    before = MEMORY.format(bytes=int(enough) + 1)
    result = train("--out", tmp_path / "run", before=before)
    assert_refused(result, r"^8 images of 16 px at a time need about .*; take --accumulation 4, or")
    assert not (tmp_path / "run").exists()
    options = ("--out", tmp_path / "run", "--accumulation", 4, "--stop-at", 1)
    result = train(*options, before=before)
    assert result.exit_code == 0, result.stderr


HUGE = """\
import shutil, types
from nfspec.training import session
patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**15))
def init(plan, seed): raise MemoryError("drawn")
patch.setattr(session, "init", init)
"""


def test_memory_that_does_not_suffice_for_an_image(train, tmp_path):
    """The refusal comes before any weight is drawn: 25 G parameters would take 98 GB."""
    spec = tmp_path / "huge.toml"
    widths = "[stages]\nwidth = [8192, 16384, 32768, 32768]\n"
    spec.write_text(f'schema = "nfspec/1"\nname = "huge"\nextends = "nfnet-f0"\n{widths}')
    spec.write_text(spec.read_text().replace("extends", 'source = "a test"\nextends'))
    result = train("--out", tmp_path / "run", "--batch", 8, spec=spec, before=HUGE)
    assert_refused(result, r"^huge: to train this network of 24,449,813,919 .* are free; take a ma")
    result = train("--out", tmp_path / "run", before=HUGE + MEMORY.format(bytes=1000))
    assert_refused(result, r"1\S* kB are free; take a smaller --size, or a device with more$")
    assert not (tmp_path / "run").exists()


def test_memory_that_does_not_suffice_after_all(train, tmp_path):
    """Each framework says so in its own way: tests/training/test_failures.py."""
    before = AT_STEP.format(step=4, action="raise MemoryError")
    result = train("--out", tmp_path / "run", before=before)
    assert_refused(result, "8 images of 16 px at a time do not fit the memory; take a smaller")
    assert result.stderr.endswith(
        "step-00000003.safetensors is whole; --resume goes on from there\n"
    )


def test_any_other_error_is_not_taken_for_that(train, tmp_path):
    before = AT_STEP.format(step=2, action="raise RuntimeError('shapes differ')")
    result = train("--out", tmp_path / "run", before=before)
    assert "RuntimeError: shapes differ" in result.unexpected
    assert "memory" not in result.stderr


def test_a_training_that_diverges_says_what_to_do(train, tmp_path):
    (tmp_path / "wild.toml").write_text("[recipe]\nweight_decay = 1e6\n")
    options = (
        "--lr",
        1000,
        "--warmup",
        0,
        "--clipping",
        "none",
        "--recipe",
        tmp_path / "wild.toml",
    )
    result = train("--out", tmp_path / "run", *options)
    assert_refused(
        result, r"step \d+: the loss is (nan|inf), at a learning rate of .* \(--lr\), or"
    )
    assert "(--clipping 0.01)" in result.stderr
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert np.isfinite(losses).all()


# Interruptions.


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(train, finished, stopped):
    result = train("--out", stopped, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "going on after step 5 of 12" in result.stderr
    assert_same_bits(stopped, finished[0], STEPS)


def test_what_was_interrupted_before_its_first_evaluation_can_be_resumed(train, tmp_path):
    """Even to a step that lies behind it: there is nothing to do, and nothing to report."""
    before = AT_STEP.format(step=2, action=INTERRUPT)
    assert train("--out", tmp_path / "run", before=before).exit_code == 130
    result = train("--out", tmp_path / "run", "--resume", "--stop-at", 1)
    assert result.unexpected == ""


BEFORE_IT = """
import os, signal, sys
from nfspec.training import frameworks
start = frameworks.start
def interrupted(backend):
    os.kill(os.getpid(), signal.{name})
    start(backend)
patch.setattr(frameworks, "start", interrupted)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_before_it_trains_leaves_nothing(train, tmp_path, name):
    """While a framework is imported, or the network built."""
    result = train("--out", tmp_path / "run", before=BEFORE_IT.format(name=name))
    assert (result.exit_code, result.unexpected, result.stdout) == (130, "", "")
    assert "stopping; again: at once\n" in result.stderr
    assert result.stderr.endswith("\ninterrupted\n")
    assert not (tmp_path / "run").exists()


def test_a_terminal_that_hangs_up_leaves_a_checkpoint(train, finished, tmp_path):
    hang_up = INTERRUPT.replace("SIGINT", "SIGHUP")
    result = train("--out", tmp_path / "run", before=AT_STEP.format(step=5, action=hang_up))
    assert result.exit_code == 130, result.stderr
    assert checkpoints(tmp_path / "run") == [3, 5]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert train("--out", tmp_path / "run", "--resume").exit_code == 0
    assert_same_bits(tmp_path / "run", finished[0], STEPS)


def test_a_second_interruption_ends_it_at_once(train, tmp_path):
    before = AT_STEP.format(step=5, action=f"{INTERRUPT}; os.kill(os.getpid(), signal.SIGINT)")
    result = train("--out", tmp_path / "run", before=before)
    assert (result.exit_code, result.unexpected) == (130, "")
    assert result.stderr.endswith("again: at once\ninterrupted\n")
    assert checkpoints(tmp_path / "run") == [3]
    assert log_of(tmp_path / "run")[-1]["step"] == 4


@pytest.mark.slow  # half a minute, mostly of starting processes
def test_ctrl_c_and_sigterm_from_outside(place, finished, tmp_path):
    """The signal arrives during a training whose twelve steps would take minutes."""
    code = "import time, pytest\npatch = pytest.MonkeyPatch()\n"
    code += AT_STEP.replace("len(calls) == {step}", "len(calls) > 4").format(action="time.sleep(1)")
    code += "from nfspec.cli import main\nmain()"
    out = tmp_path / "run"
    arguments = ["train", place / "tiny.toml", place / "data", "--backend", "torch", "--out", out]
    for number, resume in ((signal.SIGINT, []), (signal.SIGTERM, ["--resume"])):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *resume],
            env={**ENVIRONMENT, "KERAS_BACKEND": "torch"},
            stderr=subprocess.PIPE,
            text=True,
        )
        had, began = len(log_of(out)) if resume else 0, time.monotonic()
        while not (out / "log.jsonl").exists() or len(log_of(out)) < had + 2:
            assert process.poll() is None and time.monotonic() - began < 60
            time.sleep(0.02)
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert stderr.endswith("; go on with --resume\n")
    steps = len([entry for entry in log_of(out) if "loss" in entry])
    assert 4 <= steps < STEPS
    process = subprocess.run(
        [sys.executable, "-m", "nfspec", *arguments, "--resume"],
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    assert_same_bits(out, finished[0], STEPS)
