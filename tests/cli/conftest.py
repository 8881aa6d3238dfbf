"""Folders with a training, and the command line on PyTorch, for all tests of commands."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from served import AT_STEP, ENVIRONMENT, INTERRUPT, Served
from tiny import checkpoints, write_images, write_spec


@pytest.fixture(scope="session", autouse=True)
def a_terminal_that_can_hang_up():
    """Under nohup SIGHUP is ignored, by what a test starts, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def nfspec_on_torch():
    served = Served()
    yield served
    served.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with the spec and the images, which no test changes."""
    folder = tmp_path_factory.mktemp("place")
    write_spec(folder)
    write_images(folder / "data")
    return folder


@pytest.fixture(scope="session")
def train(nfspec_on_torch, place):
    """`nfspec train` of the tiny network; of other images if given."""

    def call(*arguments, data=None, spec=None, before=""):
        spec, data = spec or place / "tiny.toml", data or place / "data"
        return nfspec_on_torch("train", spec, data, *arguments, before=before)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory, place):
    """A whole training in a process of its own, which no test changes: its folder, what it printed.

    The user's configuration of Keras says all kinds of things, none of which shows: tests compare
    with trainings that have none.
    """
    folder, home = tmp_path_factory.mktemp("finished"), tmp_path_factory.mktemp("keras")
    settings = {"backend": "caffe", "floatx": "float16", "epsilon": 0.1}
    settings |= {"image_data_format": "channels_first"}
    (home / "keras.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "nfspec", "train", place / "tiny.toml", place / "data"]
    command += ["--json", "--backend", "torch", "--out", folder]
    environment = {**ENVIRONMENT, "KERAS_HOME": str(home)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture(scope="session")
def interrupted(train, tmp_path_factory):
    """A training that was interrupted in its fifth step, which no test changes."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    result = train("--out", folder, before=AT_STEP.format(step=5, action=INTERRUPT))
    assert result.exit_code == 130, result.stderr
    assert "stopping after this step, with a checkpoint; again: at once" in result.stderr
    assert result.stderr.endswith("stopped after step 5; go on with --resume\n")
    assert checkpoints(folder) == [3, 5]
    return folder


@pytest.fixture
def stopped(interrupted, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(interrupted, tmp_path / "run")
