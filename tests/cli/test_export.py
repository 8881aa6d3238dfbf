"""`nfspec export` and `nfspec verify`: tables, JSON, exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.conformance import exporting
from nfspec.conformance.proof import Row
from nfspec.errors import BackendError

import networks


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """The file of a small network, in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    networks.network("plain", tmp_path)
    return "plain.toml"


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_file_its_proof_and_its_proof_again(spec):
    done = run("export", spec, "--to", "onnx")
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "THE SAME NETWORK: plain in onnxruntime" in done.stdout
    assert done.stdout.endswith("at 6 sizes\nwrote plain.onnx\n")
    assert "nodes:" in done.stdout and "Conv" in done.stdout
    again = run("verify", "plain.onnx", "--json")
    assert again.exit_code == 0, again.stderr
    said = json.loads(again.stdout)
    assert said["same"] and len(said["rows"]) == 6 * len(said["runtimes"])


def test_weights_of_a_file_and_other_choices(spec):
    plan = nfspec.resolve(nfspec.load(spec))
    params, _ = networks.drawn(plan)
    nfspec.weights.save("w.safetensors", plan, params)
    choices = ["--size", "33x40", "--batch", "2", "--layout", "nchw", "--outputs", "pool,logits"]
    done = run("export", spec, "--to", "onnx", "--weights", "w.safetensors", "--json", *choices)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    said["rows"] = [row for row in said["rows"] if row["runtime"].startswith("onnxruntime")]
    assert [(row["batch"], row["height"], row["width"]) for row in said["rows"]] == [
        (2, 33, 40)
    ] * 2
    assert [row["output"] for row in said["rows"]] == ["pool", "logits"]
    assert said["nodes"]["Conv"] > 3 and said["bytes"] == Path("plain.onnx").stat().st_size


def test_a_file_that_differs_is_not_written(spec, monkeypatch):
    def prove(plan, params, runs, *given, **more):
        off = {"distance": np.inf, "bound": 1e-6, "problem": "shapes\nthat differ"}
        return tuple(Row(1, 64, 64, runtime=name, **off) for name in runs)

    monkeypatch.setattr(exporting, "prove_outputs", prove)
    done = run("export", spec, "--to", "onnx", "--keep")
    assert done.exit_code == 1
    assert "NOT THE SAME: plain in onnxruntime" in done.stdout and "does not run" in done.stdout
    assert "shapes" in done.stdout and "plain.failed.onnx" in done.stderr
    assert sorted(file.name for file in Path().iterdir()) == ["plain.failed.onnx", "plain.toml"]


def test_a_package_that_is_not_there(spec, monkeypatch):
    absent = type(exporting.format_of("onnx")).require.__globals__["importlib"].util
    monkeypatch.setattr(absent, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install onnx onnxruntime"):
        exporting.format_of("onnx").require()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("export", "plain.toml", "--to", "onyx"), 'did you mean "onnx"?'),
        (("export", "plain.toml", "--to", "onnx", "--size", "3x"), "--size: expected any"),
        (("export", "plain.toml", "--to", "onnx", "--batch", "0"), "--batch: expected any"),
        (("export", "plain.toml", "--to", "onnx", "--outputs", "logit"), "outputs: expected"),
        (("verify", "no.onnx"), "no.onnx"),
        (("verify", "plain.toml"), "expected a name that ends in"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(spec, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in Path().iterdir()] == ["plain.toml"]
