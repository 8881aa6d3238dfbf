"""The blocks of docs/conformance.md: the port and its adapters are judged as the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nfspec
from nfspec.conformance import check

from .conformance.subjects.onnx_network import onnx_file

TEXT = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The present folder, which has the files of the page."""
    for _, text in BLOCKS:
        if name := re.match(r"# (\w+\.\w+)\n", text):
            (tmp_path / name[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_adapter_is_about_twenty_lines_for_each_part():
    (adapter,) = [text for _, text in BLOCKS if text.startswith("# adapter.py")]
    (workflow,) = [text for language, text in BLOCKS if language == "yaml"]
    assert len(adapter.splitlines()) <= 50
    assert len(workflow.splitlines()) == 12


def test_the_port_of_pytorch_conforms(folder):
    offered = ("ws_conv", "activation")
    ids = ("WS-03", "ACT-01", "AGC-01")
    results = check("adapter:MyPort", "small.toml", must_offer=offered, properties=ids, examples=0)
    verdicts = {cell.property: cell.verdict for cell in results.cells}
    assert verdicts == {**dict.fromkeys(ids, "pass"), "AGC-01": "not offered"}


def test_a_file_in_onnxruntime_conforms(folder):
    plan = nfspec.resolve(nfspec.load("small.toml"))
    Path("network.onnx").write_bytes(onnx_file(plan))
    ids = ("NET-01", "NET-03")
    results = check("onnx_adapter.py:File", "small.toml", properties=ids, examples=0)
    verdicts = {cell.property: cell.verdict for cell in results.cells}
    assert verdicts == {"NET-01": "pass", "NET-03": "not offered"}


@pytest.mark.slow  # the whole of what the port offers, three times
def test_the_commands_run(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = [text for language, text in BLOCKS if language == "sh"]
    commands += ["pytest test_port.py"]
    for command in commands:
        if command.startswith("pytest"):
            command = command.replace("pytest", "pytest -p nfspec.conformance.plugin", 1)
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            ["sh", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "**CONFORMANT IN PART**" in (folder / "reports" / "REPORT.md").read_text()
