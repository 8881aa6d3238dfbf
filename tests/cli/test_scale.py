"""`nfspec scale`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["scale", *map(str, arguments)])


def test_the_file_extends_its_parent_and_says_what_changed():
    result = run("nfnet-f0", "--macs", "2G", "--out", "small.toml", "--set", "stages.alpha=0.3")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["nfnet-f0", "small"] and lines[-1] == "wrote small.toml"
    assert max(map(len, lines)) <= 80
    text = Path("small.toml").read_text()
    assert 'extends = "nfnet-f0"' in text and "# [256, 512, 1536, 1536]" in text
    spec = nfspec.load("small.toml")
    assert spec.stages.alpha == 0.3 and spec.name == "small"
    assert nfspec.count(nfspec.resolve(spec)).macs == pytest.approx(2e9, rel=0.03)
    again = run("small.toml", "--macs", "1G")
    assert 'extends = "small.toml"' in again.stdout and 'name = "small-scaled"' in again.stdout


def test_json_has_the_counts_and_the_fields():
    found = json.loads(run("nf-resnet-50", "--params", "5M", "--by", "width", "--json").stdout)
    assert found["parameters"] == pytest.approx(5e6, rel=0.03) and found["miss"] <= 0.03
    assert {*found["changed"]} == {"stages.width", "stem.width"}
    assert "stages.depth" in found["kept"]


def test_json_says_what_ends_the_search():
    found = json.loads(run("nfnet-nano", "--macs", "1", "--json").stdout)
    assert found["limit"].startswith("nfnet-nano has at least about ")
    assert json.loads(run("nfnet-nano", "--macs", "20M", "--json").stdout)["limit"] == ""


def test_a_budget_of_time_is_that_of_cost():
    arguments = (
        "--step",
        "15ms",
        "--accelerator",
        "v100",
        "--batch",
        "32",
        "--precision",
        "float16",
    )
    result = run("timm/eca_nfnet_l0", *arguments, "--out", "fast.toml")
    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("step")]
    assert 14.85 <= float(line.split()[1]) <= 15.15 and line.endswith(" ms")
    cost = ("cost", "fast.toml", "--accelerator", "v100", "--batch", "32", "--precision", "float16")
    found = json.loads(CliRunner().invoke(app, [*cost, "--json"]).stdout)
    assert found["step"]["seconds"] == pytest.approx(0.015, rel=0.01)


def test_a_budget_that_is_not_met_is_said():
    result = run("nfnet-f0", "--macs", "0.2G", "--by", "depth")
    assert result.exit_code == 0
    assert "stages.depth at 4 blocks; add width to --by to come nearer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--macs", "1e20"), "nfnet-nano has at most about "),
        (("--step", "1ns", "--accelerator", "h100"), "a step of nfnet-nano takes at least about "),
        (("--macs", "1G", "--params", "10G"), "input.test is from 32 to 8,192"),
    ],
)
def test_a_budget_out_of_reach_is_said_with_the_fields_that_end_it(arguments, message):
    result = run("nfnet-nano", *arguments)
    assert result.exit_code == 0 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    Path("x.toml").write_text(result.stdout)
    assert nfspec.load("x.toml").name == "nfnet-nano-scaled"


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "1e99", "1e", "0.5"])
@pytest.mark.parametrize("option", ["--macs", "--params"])
def test_amounts_that_are_none_are_sentences(option, value):
    result = run("nfnet-nano", f"{option}={value}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{option}: expected a number such as 2G or 30M" in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nfnet-f0",), "give a budget: --macs, --params or --step"),
        (("nfnet-f0", "--macs", "2 apples"), "--macs: expected a number such as 2G or 30M"),
        (("nfnet-f0", "--macs", "1G", "--by", "girth"), "by: expected some of"),
        (
            ("nfnet-f0", "--step", "soon", "--accelerator", "h100"),
            "--step: expected a time such as",
        ),
        (("nfnet-f0", "--step", "20"), "--step: expected a time such as 20ms"),
        (("nfnet-f0", "--step", "20ms"), "step: give accelerator, too"),
        (
            ("nfnet-f0", "--step", "20ms", "--accelerator", "cpu"),
            "nfspec cost alone measures the cpu",
        ),
        (
            ("nfnet-f0", "--macs", "1G", "--accelerator", "h100"),
            "the device of --step; give --step",
        ),
        (("nfnet-f0", "--macs", "1G", "--out", "a.txt"), "ends in .toml"),
        (("nowhere.toml", "--macs", "1G"), "nowhere.toml: "),
    ],
)
def test_what_cannot_be_used_is_a_sentence(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
