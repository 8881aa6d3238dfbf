"""`nfspec generate`: a file of source, its weights, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app

import networks


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """The file of a small network, in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    networks.network("plain", tmp_path)
    return "plain.toml"


def run(*arguments):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def test_a_file_that_was_checked(spec):
    done = run(spec, "--to", "torch", "--check", "--out", "net.py")
    assert done.exit_code == 0
    assert "THE SAME NETWORK: plain for torch at 3 sizes" in done.stdout
    plan = nfspec.resolve(nfspec.load(spec))
    assert Path("net.py").read_text(encoding="utf-8") == nfspec.generate(plan, to="torch")
    again = run(spec, "--to", "torch", "--out", "net.py")
    assert again.exit_code == 2 and "net.py exists, and is left as it is" in again.stderr
    assert run(spec, "--to", "torch", "--out", "net.py", "--force").exit_code == 0


def test_the_source_alone_on_stdout(spec):
    done = run(spec, "--to", "torch", "--check", "--set", "stages.alpha=0.3")
    assert done.exit_code == 0
    changed = nfspec.load(spec, {"stages.alpha": 0.3})
    assert done.stdout == nfspec.generate(changed, to="torch")
    assert "THE SAME NETWORK" in done.stderr


def test_weights_beside_the_source(spec):
    plan = nfspec.resolve(nfspec.load(spec))
    params, _ = networks.drawn(plan)
    nfspec.weights.save("old.safetensors", plan, params)
    done = run(spec, "--to", "torch", "--weights", "old.safetensors", "--out", "net.py")
    assert done.exit_code == 0, done.stderr
    back = nfspec.weights.load("net.safetensors", plan)
    assert all(np.array_equal(back[name], value) for name, value in params.items())


@pytest.mark.filterwarnings("error")  # as PYTHONWARNINGS=error has it
def test_weights_of_another_meaning_are_taken_with_a_sentence(spec):
    plan = nfspec.resolve(nfspec.load(spec))
    nfspec.weights.save("old.safetensors", plan, networks.drawn(plan)[0])
    asked = ("--to", "numpy", "--weights", "old.safetensors", "--set", "ws.eps_rule=none")
    done = run(spec, *asked, "--out", "net.py")
    assert done.exit_code == 0
    assert done.stderr == (
        "warning: old.safetensors: fits plain in shape, but was saved for another spec:\n"
        '  ws.eps_rule: "max" in the file, "none" here\n'
    )


def test_a_folded_file_and_its_weights(spec):
    plan = nfspec.resolve(nfspec.load(spec))
    params, _ = networks.drawn(plan)
    nfspec.weights.save("old.safetensors", plan, params)
    asked = ("--to", "numpy", "--folded", "--check", "--weights", "old.safetensors")
    done = run(spec, *asked, "--out", "net.py")
    assert done.exit_code == 0, done.stderr
    assert "THE SAME NETWORK" in done.stdout
    folded = nfspec.fold(plan, params)
    assert Path("net.py").read_text(encoding="utf-8") == nfspec.generate(folded, to="numpy")
    back = nfspec.weights.load("net.safetensors", folded.plan)
    assert all(np.array_equal(back[name], value) for name, value in folded.params.items())


def test_weights_of_another_head_and_grey_images(spec):
    plan = nfspec.resolve(nfspec.load(spec))
    nfspec.weights.save("old.safetensors", plan, networks.drawn(plan)[0])
    ends = ["head.classes=7", "input.channels=1", "input.mean=[0.5]", "input.std=[0.2]"]
    changes = [part for end in ends for part in ("--set", end)]
    done = run(spec, "--to", "torch", "--weights", "old.safetensors", "--out", "net.py", *changes)
    assert done.exit_code == 0, done.stderr
    assert "head.fc" in done.stderr and "stem.conv0" in done.stderr
    over = {"head.classes": 7, "input.channels": 1, "input.mean": [0.5], "input.std": [0.2]}
    fitted = nfspec.resolve(nfspec.load(spec, over))
    assert nfspec.weights.load("net.safetensors", fitted)["head.fc.kernel"].shape[1] == 7


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("plain.toml", "--to", "torhc"), 'did you mean "torch"?'),
        (("plain.toml", "--to", "torch", "--weights", "w.safetensors"), "--weights: give --out"),
        (("plane.toml", "--to", "torch"), "plane.toml"),
        (
            ("plain.toml", "--to", "torch", "--weights", "no.safetensors", "--out", "n.py"),
            "no.safe",
        ),
    ],
)
def test_what_cannot_be_used_is_a_sentence(spec, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_that_differs_is_not_written(spec, tmp_path, monkeypatch):
    from nfspec.conformance import proof

    row = proof.Row(1, 64, 64, distance=0.1, bound=1e-6)
    monkeypatch.setattr(proof, "prove", lambda *given, **more: (row,))
    done = run(spec, "--to", "torch", "--check", "--out", "net.py")
    assert done.exit_code == 1 and "NOT THE SAME: plain for torch leaves the bound" in done.stdout
    assert not (tmp_path / "net.py").exists()
