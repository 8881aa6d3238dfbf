"""A short turn of every reader; `make fuzz` is a long one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzing.targets import TARGETS

TESTS = Path(__file__).parents[1]
FILES = 8  # spoilt ones for each reader, besides all that are hostile


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """The result of one turn of each target."""
    state = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-m", "fuzzing", "--once", "--executions", str(FILES)]
    path = f"{TESTS}{os.pathsep}{os.environ['PYTHONPATH']}"
    done = subprocess.run(
        [*command, "--state", state],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr[-4000:]
    return json.loads((state / "progress.json").read_text())


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_is_taken_or_refused_in_a_sentence(turns, name):
    assert turns[name]["findings"] == {}
    assert turns[name]["executions"] >= FILES
