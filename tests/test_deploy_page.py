"""The blocks of docs/deploy.md: files are exported, run by their runtimes alone, and verified."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import blocks
from PIL import Image
from typer.testing import CliRunner

import nfspec
from nfspec.backends.exporters.formats import SUFFIXES
from nfspec.cli import app
from nfspec.conformance.cases.weights import trial_params

PAGE = "docs/deploy.md"
PYTHON = blocks(PAGE, "python")
# Blocks that run a file which another format's line has written.
RUNS = {
    Path(name).suffix: block
    for block in PYTHON
    for name in re.findall(r'"(net\.\w+)"', block)
    if "nfspec.export" not in block
}


def run_alone(program, folder):
    """Run a program with nothing but what is installed, and nothing of nfspec imported."""
    program += "\nimport sys\nassert 'nfspec' not in sys.modules\n"
    command = [sys.executable, "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_commands_run_and_onnxruntime_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for n in range(4):
        Image.fromarray(np.full((200, 200, 3), 50 * n, np.uint8)).save(f"photos/{n}.png")
    for command in "".join(blocks(PAGE, "sh")).splitlines():
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, done.stderr
    assert len([line for line in RUNS[".onnx"].splitlines() if line]) <= 11
    done = run_alone(RUNS[".onnx"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nfnet-nano {'pixels': 'uint8, 0 to 255'")
    (own,) = [block for block in PYTHON if "nano.onnx" in block]
    exec(compile(own, PAGE, "exec"), {})


@pytest.mark.slow  # to convert a network takes seconds in most formats
@pytest.mark.parametrize("suffix", [name for name in RUNS if name != ".onnx"])
def test_the_other_runtimes_run_alone(suffix, tmp_path):
    form = SUFFIXES[suffix]
    if absent := [name for name in form.packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed")
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    nfspec.export(plan, form.name, tmp_path / f"net{suffix}", trial_params(plan, 0))
    done = run_alone(RUNS[suffix], tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_block_of_the_page_is_run_here():
    others = [block for block in PYTHON if "nano.onnx" in block]
    assert len(PYTHON) == len(RUNS) + len(others)
    assert {*RUNS} == {".onnx", ".stablehlo", ".savedmodel", ".tflite", ".pt2", ".pte"}
