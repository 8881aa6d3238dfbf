"""The README's blocks run, in the order in which a reader meets them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.compilation import BACKENDS
from nfspec.conformance import compare
from nfspec.conformance.workers import worker

from kept_process import Kept

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
DEPTH = "depth = [1, 2, 4, 2]"


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (variant,) = blocks("toml")
    (tmp_path / "moth.toml").write_text(variant)
    return tmp_path


def make_shallow(folder: Path) -> None:
    """Leave the network a block in each stage: one of each kind that frameworks compile."""
    file = folder / "moth.toml"
    text = file.read_text()
    assert text.count(DEPTH) == 1
    file.write_text(text.replace(DEPTH, "depth = [1, 1, 1, 1]"))


@pytest.fixture
def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process of each framework for all commands, each of which would start its own."""
    processes = {name: Kept(name, "cpu", "f32") for name in BACKENDS}
    monkeypatch.setattr(compare, "WorkerProcess", lambda subject: processes[subject])
    monkeypatch.setattr(worker, "WorkerProcess", lambda subject, device, mode: processes[subject])
    yield
    for process in processes.values():
        process.end()


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def within(line: str) -> str:
    """Output of a command line, run in this process; with `||` its exit status has to be 1."""
    program, *arguments = shlex.split(line.partition("||")[0], comments=True)
    assert program == "nfspec"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == ("||" in line), done.output
    return done.stdout


def test_the_python_blocks_run(folder, environment):
    assert len(blocks("python")) == 9
    make_shallow(folder)
    run([sys.executable, "-c", "\n".join(blocks("python"))], folder, environment)


def test_the_commands_run(folder, environment, kept, monkeypatch):
    commands, replay = blocks("sh")
    first, *quick, comparison, conformance = commands.splitlines()
    run(["sh", "-euc", first], folder, environment)
    monkeypatch.chdir(folder)
    for command in quick:
        within(command)
    make_shallow(folder)
    assert "THE SAME NETWORK on jax, torch, tensorflow" in within(comparison)
    assert within(conformance).startswith("CONFORMANT: ")
    assert within(replay).count("within its bound") == 3


def test_the_parity_table_is_of_todays_form():
    (table,) = [text for text in blocks("text") if "Distance" in text]
    taps = list(nfspec.resolve(nfspec.load("nfnet-f0")).taps)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    for tap in taps:
        *distances, bound = map(float, rows[tap])
        assert len(distances) == 3
        assert max(distances) <= bound
    assert table.splitlines()[-1].startswith("THE SAME NETWORK on jax, torch, tensorflow")
    assert max(map(len, table.splitlines())) <= 80
