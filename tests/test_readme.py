"""The README's blocks run, in the order in which a reader meets them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nfspec

from quick_xla import XLA_FLAGS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (variant,) = blocks("toml")
    (tmp_path / "moth.toml").write_text(variant)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XLA_FLAGS": XLA_FLAGS}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_blocks_run(folder):
    assert len(blocks("python")) == 8
    run([sys.executable, "-c", "\n".join(blocks("python"))], folder)


def test_the_commands_run(folder):
    commands, replay = blocks("sh")
    output = run(["sh", "-euc", commands], folder)
    assert "THE SAME NETWORK on jax, torch, tensorflow" in output
    assert "\nCONFORMANT: " in output
    assert run(["sh", "-euc", replay], folder).count("within its bound") == 3


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
