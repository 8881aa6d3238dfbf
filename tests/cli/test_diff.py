"""`nfspec diff`."""

import json

from typer.testing import CliRunner

import nfspec
from nfspec.cli import app

HEAD = 'schema = "nfspec/1"\nname = "mine"\nextends = "nfnet-f0"\nsource = "a test"\n'

F0_F1 = """\
field                         nfnet-f0      nfnet-f1
input.train                   192           224
input.test                    256           320
stages.depth                  [1, 2, 6, 3]  [2, 4, 12, 6]
head.dropout                  0.2           0.3
recipe.randaugment_magnitude  5.0           10.0
parameters 71.5 M to 133 M (+61.1 M)
MACs 12.4 G to 35.5 G (+23.2 G), at 256 px and 320 px
"""


def run(*arguments):
    return CliRunner().invoke(app, ["diff", *map(str, arguments)])


def test_two_networks():
    result = run("nfnet-f0", "nfnet-f1")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == F0_F1
    assert "parameters 133 M to 71.5 M (-61.1 M)" in run("nfnet-f1", "nfnet-f0").stdout


def test_equal_specs_exit_with_0(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + "[stages]\nalpha = [0.2, 0.2, 0.2, 0.2]\n")
    result = run("nfnet-f0", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"nfnet-f0 and {file} agree in every field\n"


def test_dialects_have_fields_of_their_own_and_no_counts():
    result = run("deepmind", "timm")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert ["ws.eps", "0.0001", "1e-05"] in lines
    assert ["head.dropout", "-", "0.0"] in lines
    assert ["recipe.nesterov", "true", "-"] in lines
    assert "parameters" not in result.stdout


def test_long_values_are_folded_to_80_columns():
    lines = run("nfnet-f0", "timm/dm_nfnet_f0").stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("agc.exclude "))
    assert lines[at].split() == ["agc.exclude", '["head.fc.kernel"]', '["head.fc.kernel",']
    assert lines[at + 1].split() == ['"head.fc.bias"]']
    assert lines[at + 1].index('"') == lines[at].rindex("[")
    assert max(map(len, lines)) <= 80


def test_json_of_networks_and_of_dialects():
    result = run("nfnet-f0", "nfnet-f1", "--json")
    counts = [nfspec.count(nfspec.resolve(nfspec.load(n))) for n in ("nfnet-f0", "nfnet-f1")]
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data | {"fields": []} == {
        "a": "nfnet-f0",
        "b": "nfnet-f1",
        "equal": False,
        "fields": [],
        "parameters": [count.parameters for count in counts],
        "macs": [count.macs for count in counts],
        "size": [256, 320],
    }
    assert data["fields"][2] == {"path": "stages.depth", "a": [1, 2, 6, 3], "b": [2, 4, 12, 6]}
    dialects = json.loads(run("timm", "timm", "--json").stdout)
    assert (dialects["equal"], dialects["fields"], dialects["parameters"]) == (True, [], [])


def test_errors_exit_with_2(tmp_path):
    for other in ("nfnet-f00", tmp_path / "none.toml"):
        result = run("nfnet-f0", other)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
