"""`--set` on every command that takes a spec."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import nfspec
from nfspec import weights
from nfspec.cli import app
from nfspec.cli.commands import COMMANDS
from nfspec.training.evaluating import evaluate
from nfspec.training.options import Options
from nfspec.training.session import prepare

CHANGED = ("--set", "stages.alpha=0.3", "--set", "head.classes=10", "--set", "activation.kind=silu")
OVER = {"stages.alpha": 0.3, "head.classes": 10, "activation.kind": "silu"}
# Commands that take no spec.
WITHOUT = {"list", "explain", "replay", "plot", "sweep", "verify"}
ARGUMENTS = {
    "show": ["show", "nfnet-nano"],
    "agc": ["agc", "nfnet-nano"],
    "check": ["check", "nfnet-nano"],
    "diff": ["diff", "nfnet-nano", "nfnet-nano"],
    "new": ["new", "mine", "--from", "nfnet-nano"],
    "compare": ["compare", "nfnet-nano"],
    "conform": ["conform", "nfnet-nano"],
    "train": ["train", "nfnet-nano", "digits", "--backend", "torch"],
    "evaluate": ["evaluate", "nfnet-nano", "digits", "--weights", "none.safetensors"],
    "explore": ["explore", "nfnet-nano", "--only"],
    "lower": ["lower", "nfnet-nano", "--target", "cpu"],
    "predict": ["predict", "nfnet-nano", "a.jpg", "--weights", "none.safetensors"],
    "embed": ["embed", "nfnet-nano", "a.jpg", "--weights", "none.npz", "--out", "a.npz"],
    "cost": ["cost", "nfnet-nano"],
    "table": ["table", "nfnet-nano"],
    "signal": ["signal", "nfnet-nano"],
    "scale": ["scale", "nfnet-nano", "--macs", "1M"],
    "bench": ["bench", "nfnet-nano", "--backends", "torch", "--work", "forward"],
    "generate": ["generate", "nfnet-nano", "--to", "torch"],
    "export": ["export", "nfnet-nano", "--to", "onnx"],
    "convert": ["convert", "in.safetensors", "out.npz", "--variant", "nfnet-nano"],
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.safetensors").write_bytes(b"x")


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def done(*arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_every_command_that_takes_a_spec_is_here():
    assert {*ARGUMENTS} == {*COMMANDS} - WITHOUT


@pytest.mark.parametrize("command", ARGUMENTS.values(), ids=ARGUMENTS)
def test_all_that_is_wrong_is_told_at_once(command):
    result = run(*command, "--set", "stages.alhpa=0.3", "--set", "head.classes=0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        '--set: stages.alhpa: unknown key; did you mean "alpha"? [SPEC-UNKNOWN-KEY]',
        "--set: head.classes: must be at least 1; found 0 [SPEC-VALUE]",
    ]


@pytest.mark.parametrize("command", ARGUMENTS.values(), ids=ARGUMENTS)
def test_what_cannot_be_read_is_told_at_once(command):
    result = run(*command, "--set", "stages.alpha", "--set", "a..b=1", "--set", "ws.eps=[")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.rpartition("[")[2] for line in result.stderr.splitlines()] == ["SPEC-TOML]"] * 3


def test_show_prints_the_changed_network():
    plan = nfspec.resolve(nfspec.load("nfnet-nano", OVER))
    shown = json.loads(done("show", "nfnet-nano", *CHANGED, "--json"))
    assert (shown["digest"], shown["name"]) == (plan.digest, "nfnet-nano")
    origins = done("show", "nfnet-nano", *CHANGED, "--resolved")
    assert origins.count("# --set\n") == len(OVER)


def test_check_and_agc_and_cost_take_them():
    (checked,) = json.loads(done("check", "nfnet-nano", *CHANGED, "--json"))
    assert checked["digest"] == nfspec.load("nfnet-nano", OVER).digest
    off = json.loads(done("agc", "nfnet-nano", "--set", "agc.enabled=false", "--json"))
    assert off["agc"]["enabled"] is False
    costs = json.loads(done("cost", "nfnet-nano", *CHANGED, "--json"))
    assert costs["digest"] == nfspec.load("nfnet-nano", OVER).digest


def test_diff_changes_the_second():
    result = run("diff", "nfnet-nano", "nfnet-nano", *CHANGED)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].split() == ["field", "nfnet-nano", "nfnet-nano", "(--set)"]
    assert "stages.alpha     0.2          0.3\n" in result.stdout
    assert "agree" in done("diff", "nfnet-nano", "nfnet-nano", "--set", "stages.alpha=0.2")
    result = run("diff", "deepmind", "deepmind", "--set", "ws.eps=1e-5")
    assert result.stdout.splitlines()[1].split() == ["ws.eps", "0.0001", "1e-05"]


def test_new_writes_them_down():
    names = ("--set", 'agc.names."stem.*"=0.5', "--set", "ws={ddof=1}")
    assert "wrote mine.toml" in done("new", "mine", "--from", "nfnet-nano", *CHANGED, *names)
    actual = nfspec.load("mine.toml")
    over = OVER | {'agc.names."stem.*"': 0.5, "ws.ddof": 1, "name": "mine"}
    wanted = nfspec.load("nfnet-nano", over | {"source": "my own, from nfnet-nano"})
    assert actual.model_dump() == wanted.model_dump()
    for key in ("name", "source", "family", "schema"):
        result = run("new", "other", "--set", f"{key}=nfnet")
        assert (result.exit_code, result.stdout) == (2, "")


def test_convert_reads_for_the_changed_network():
    plan = nfspec.resolve(nfspec.load("nfnet-nano", OVER))
    weights.save("own.safetensors", plan, nfspec.init(plan, 3))
    done("convert", "own.safetensors", "own.npz", "--variant", "nfnet-nano", *CHANGED)
    actual = weights.from_deepmind("own.npz", plan)
    assert all(np.array_equal(actual[k], value) for k, value in nfspec.init(plan, 3).items())


def test_training_takes_them_over_its_other_options():
    over = OVER | {"recipe.batch": 16, "recipe.epochs": 2}
    options = Options("nfnet-nano", "digits", backend="torch", batch=32, overrides=over)
    spec = prepare(options).spec
    assert (spec.stages.alpha, spec.activation.kind) == (0.3, "silu")
    assert (spec.recipe.batch, spec.recipe.epochs, spec.head.classes) == (16, 2, 10)
    assert prepare(Options("nfnet-nano", "digits", backend="torch", batch=32)).run.batch == 32


def test_evaluation_takes_them():
    with pytest.raises(nfspec.SpecError, match=r"^--set: stages\.alhpa: unknown key"):
        evaluate("nfnet-nano", "digits", "none.safetensors", overrides={"stages.alhpa": 1})
