"""`nfspec check`."""

import json

from typer.testing import CliRunner

import nfspec
from nfspec.cli import app

GOOD = 'schema = "nfspec/1"\nname = "wide"\nextends = "nfnet-f0"\nsource = "a test"\n'


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_good_specs_are_a_line_each(tmp_path):
    file = tmp_path / "wide.toml"
    file.write_text(GOOD + "[input]\ntest = 128\n")
    result = run("nfnet-f0", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "nfnet-f0: ok, nfnet-f0, 71.5 M parameters, 12.4 GMACs at 256 px",
        f"{file}: ok, wide, 71.5 M parameters, 3.11 GMACs at 128 px",
    ]


def test_every_problem_of_every_bad_file_is_on_stderr_and_good_ones_are_still_said(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(GOOD + "[stages]\nalpah = 0.2\nkernel = 4\n")
    two.write_text(GOOD + "[stages]\ndepth = [1, 2]\n")
    result = run(one, "nfnet-f1", two)
    assert result.exit_code == 2
    assert result.stdout == "nfnet-f1: ok, nfnet-f1, 133 M parameters, 35.5 GMACs at 320 px\n"
    lines = result.stderr.splitlines()
    assert [line.startswith(f"{one}:6:1: stages.alpah: ") for line in lines].count(True) == 1
    assert [line.startswith(f"{one}:7:") for line in lines].count(True) == 1
    assert any(line.startswith(f"{two}:") and line.endswith("[SPEC-LENGTH]") for line in lines)
    assert "Traceback" not in result.stderr


def test_an_image_too_small_for_the_network_is_a_problem(tmp_path):
    file = tmp_path / "valid.toml"
    table = '[stem]\npadding = "valid"\nkernel = 31\n[input]\ntest = 16\n'
    file.write_text(GOOD + table)
    result = run(file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{file}: image of 16x16 px: nothing is left of it at stem.conv0\n"
    report = json.loads(run(file, "--json").stdout)[0]
    assert [(p["code"], p["path"]) for p in report["problems"]] == [("INPUT", "input.test")]


def test_json_reports_both_kinds(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(GOOD + "[stages]\nalpah = 0.2\n")
    result = run("nfnet-f0", file, "--json")
    good, bad = json.loads(result.stdout)
    assert result.exit_code == 2
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    count = nfspec.count(plan)
    assert good == {
        "file": "nfnet-f0",
        "ok": True,
        "name": "nfnet-f0",
        "digest": plan.digest,
        "parameters": 71489284,
        "macs": count.macs,
        "size": 256,
    }
    assert (bad["file"], bad["ok"]) == (str(file), False)
    (problem,) = bad["problems"]
    assert list(problem) == ["code", "path", "message", "file", "line", "column"]
    assert (problem["code"], problem["path"]) == ("SPEC-UNKNOWN-KEY", "stages.alpah")
    assert (problem["file"], problem["line"], problem["column"]) == (str(file), 6, 1)
