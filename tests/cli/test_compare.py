"""`nfspec compare`, its workers aside: tests/conformance has those."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.cli.compare import verdict
from nfspec.conformance import compare as module
from nfspec.conformance.compare import Comparison, Run

FACTS = {"version": "1.0", "keras": "3.0", "device": "cpu"}


def result(**distances: float) -> Comparison:
    runs = [
        Run(backend, distance={"stem": 1e-7, "logits": d}, facts=FACTS, forward_seconds=0.5)
        for backend, d in distances.items()
    ]
    return Comparison(("stem", "logits"), {"stem": 3e-6, "logits": 3e-6}, tuple(runs), 1.25)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture
def run(monkeypatch, photo):
    """Run the command with a made-up result in place of the workers'."""

    def run(comparison: Comparison, *arguments: str):
        monkeypatch.setattr(module, "compare", lambda *args, **kwargs: comparison)
        command = ["compare", "timm/test_nfnet", "--image", photo, "--size", "32", *arguments]
        return CliRunner().invoke(app, command)

    return run


def test_the_table_and_the_verdict(run, photo):
    done = run(result(jax=1e-6, torch=2.5e-6))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "timm/test_nfnet: 383 k parameters, 11.6 M MACs at 32 px, 4 blocks"
    assert lines[1] == f"image: {photo}, 32 x 32 px"
    assert "jax 1.0, keras 3.0, on cpu" in lines
    rows = [line.split() for line in lines]
    assert ["tap", "jax", "torch", "bound"] in rows
    assert ["stem", "1.0e-07", "1.0e-07", "3.0e-06"] in rows
    assert ["logits", "1.0e-06", "2.5e-06", "3.0e-06"] in rows
    assert ["forward", "pass,", "best", "of", "3", "0.50", "0.50", "1.25"] in rows
    assert lines[-1] == "THE SAME NETWORK on jax, torch: logits within 2.5e-06"


def test_a_framework_beyond_its_bound_fails_with_1(run):
    done = run(result(jax=1e-6, torch=4e-6))
    assert done.exit_code == 1
    assert "4.0e-06 !" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "NOT THE SAME: torch leaves the bound first at logits (4.0e-06 > 3.0e-06)"
    )


def test_json(run):
    done = run(result(jax=1e-6), "--json")
    data = json.loads(done.stdout)
    assert data["same"] is True
    assert data["bound"]["logits"] == 3e-6
    assert data["runs"][0]["distance"] == {"stem": 1e-7, "logits": 1e-6}


def test_a_missing_framework_is_named_and_does_not_fail(run):
    comparison = result(torch=1e-6)
    absent = Run("jax", problem="jax not installed; run: pip install jax", installed=False)
    comparison.runs = (absent, *comparison.runs)
    done = run(comparison)
    assert done.exit_code == 0
    assert "jax: jax not installed; run: pip install jax" in done.stdout


def test_nothing_installed_is_an_error(run):
    absent = Run("jax", problem="jax not installed; run: pip", installed=False)
    done = run(Comparison(("logits",), {"logits": 1.0}, (absent,), 0.0))
    assert done.exit_code == 2
    assert done.stderr.endswith("jax: jax not installed; run: pip\n")


def test_a_failed_framework_is_not_the_same():
    comparison = result(jax=1e-6)
    comparison.runs = (*comparison.runs, Run("torch", problem="torch: died"))
    assert verdict(comparison) == "NOT SHOWN: torch failed"
    assert not comparison.same


@pytest.mark.parametrize("backends", ["jacks", "", "jax,torsch"])
def test_an_unknown_backend_is_refused(backends, photo):
    command = ["compare", "nfnet-f0", "--image", photo, "--backends", backends]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert done.stderr == (
        f"--backends: expected some of jax, torch, tensorflow; found '{backends}'\n"
    )


def test_an_image_that_is_none_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["compare", "nfnet-f0", "--image", str(tmp_path / "none.jpg")])
    assert done.exit_code == 2
    assert "none.jpg: not an image that can be read" in done.stderr
