"""A training that is killed again and again, at any moment, and resumed each time.

Minutes long: `python -m pytest -m slow tests/cli/test_killed.py`, on the framework of
KERAS_BACKEND or on PyTorch. A checkpoint is written after each step, so that many of the kills meet
the writing of one, or of the log, or of the weights.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from served import ENVIRONMENT
from tiny import assert_same_bits, write_images, write_spec

BACKEND = os.environ.get("KERAS_BACKEND", "torch")
KILLS = 10
STEPS = 120  # more than are done before the last kill
EPOCHS = 60  # of three steps


@pytest.fixture
def command(tmp_path):
    """The command to train in a folder, the same each time but for --resume."""
    spec, data = write_spec(tmp_path), write_images(tmp_path / "data")

    def of(out):
        options = ["--backend", BACKEND, "--epochs", EPOCHS, "--stop-at", STEPS]
        options += ["--checkpoint-minutes", 0, "--out", out]
        if (out / "run.json").exists():
            options.append("--resume")
        return [sys.executable, "-m", "nfspec", "train", spec, data, *map(str, options)]

    return of


@pytest.fixture
def environment(tmp_path):
    """JAX compiles once for all starts."""
    return {
        **ENVIRONMENT,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def lines_of(out):
    path = out / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_training_that_is_killed_ten_times_ends_in_the_same_bits(tmp_path, command, environment):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = subprocess.run(command(whole), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

    rng = random.Random(0)
    for kill in range(KILLS):
        lines, seconds = rng.randint(0, 8), rng.uniform(0.0, 0.1)
        process = subprocess.Popen(
            command(killed),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        before, began = lines_of(killed), time.monotonic()
        while lines_of(killed) < before + lines and process.poll() is None:
            assert time.monotonic() - began < 120
            time.sleep(0.002)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        _, stderr = process.communicate()
        assert process.returncode == -signal.SIGKILL, (kill, stderr)
        assert "Traceback" not in stderr
        assert "going back to the one before it" not in stderr

    result = subprocess.run(command(killed), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "going on after step" in result.stderr
    assert_same_bits(killed, whole, STEPS)
