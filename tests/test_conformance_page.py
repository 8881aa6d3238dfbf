"""The blocks of docs/conformance.md: the port and its adapters are judged as the page says."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nfspec
from nfspec.conformance import check
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.subjects import METHODS
from nfspec.plan import ECA, Activation, Pool, Residual, SqueezeExcite, WSConv

from .conformance.subjects.onnx_network import onnx_file

TEXT = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
OPERATIONS = (WSConv, Activation, Pool, SqueezeExcite, ECA, Residual)
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


def test_every_property_and_method_is_named():
    names = {*re.findall(r"\b[A-Z]+-\d\d\b", TEXT)}
    assert names == {*PROPERTIES}
    assert {*METHODS} <= {*re.findall(r"`(\w+)`", TEXT)}


def test_the_fields_of_descriptions_are_those_that_there_are():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    described = {kind.__name__: {f.name for f in dataclasses.fields(kind)} for kind in OPERATIONS}
    row = {f.name for f in dataclasses.fields(plan.blocks[0])}
    described |= {"a row of `plan.blocks`": row, "a plan": {*dir(plan)}}
    described |= {
        "`plan.agc`": {*plan.agc.model_dump()},
        "`plan.recipe`": {*plan.recipe.model_dump()},
    }
    table = re.search(r"^\| description .*?\n\n", TEXT, re.DOTALL | re.MULTILINE)[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)[1:]
    assert len(rows) == 10
    for name, fields in rows:
        named = {*re.findall(r"`(\w+)`", re.sub(r"\{.*?\}|\(.*?\)", "", fields))}
        assert named and named <= described[name.strip("`") if name[1:-1].isalnum() else name], name


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
