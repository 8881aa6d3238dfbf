"""`nfspec agc`."""

import json
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.plan.clipping import clip_rules

HEAD = 'schema = "nfspec/1"\nname = "mine"\nsource = "a test"\n'
SMALL = f"""{HEAD}
extends = "nfnet-f0"
stem = {{ width = [16], kernel = 3, stride = 2 }}
block.convs = 1
head = {{ conv = "none", classes = 10 }}
[stages]
depth = [1]
width = [32]
stride = 1
group_width = 8
attention = "eca"
[agc]
roles = {{ gain = 0.02 }}
names = {{ "stem.*" = 0.05, "stem.conv0.kernel" = 0.1 }}
"""
TEXT = """\
mine
agc       a unit's norm(gradient) is cut to lambda * max(norm(weight), eps)
lambda    0.01, 0.02 for the role gain, 0.05 for "stem.*", 0.1 for
          "stem.conv0.kernel"
eps       0.001
unit      squeeze: a kernel's output channel; a whole gain, bias or skip gain
excluded  head.fc.kernel
decay     2e-05, not for the roles gain bias skip_gain
tensors   19: 18 clipped, 7 decayed
units     135: 125 clipped

                       role       shape      norm of  units  lambda  decay
stem
.conv0.kernel          kernel     3x3x3x16   H W I       16     0.1  2e-05
.conv0.gain            gain       16         all          1    0.05      -
.conv0.bias            bias       16         all          1    0.05      -
stages.0.blocks.0
.conv_shortcut.kernel  kernel     1x1x16x32  H W I       32    0.01  2e-05
.conv_shortcut.gain    gain       32         all          1    0.02      -
.conv_shortcut.bias    bias       32         all          1    0.01      -
.conv0.kernel          kernel     1x1x16x16  H W I       16    0.01  2e-05
.conv0.gain            gain       16         all          1    0.02      -
.conv0.bias            bias       16         all          1    0.01      -
.conv1.kernel          kernel     3x3x8x16   H W I       16    0.01  2e-05
.conv1.gain            gain       16         all          1    0.02      -
.conv1.bias            bias       16         all          1    0.01      -
.conv2.kernel          kernel     1x1x16x32  H W I       32    0.01  2e-05
.conv2.gain            gain       32         all          1    0.02      -
.conv2.bias            bias       32         all          1    0.01      -
.eca.kernel            kernel     3          all          1    0.01  2e-05
.skip_gain             skip_gain  scalar     all          1    0.01      -
head
.fc.kernel             head       32x10      I           10       -  2e-05
.fc.bias               bias       10         all          1    0.01      -
"""


def run(*arguments):
    return CliRunner().invoke(app, ["agc", *map(str, arguments)])


def written(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def lines_of(name):
    return run(name).stdout.splitlines()


def row(lines, name):
    """The cells of the first tensor of a name, spaces within a cell kept."""
    (line, *_) = [line for line in lines if line.startswith(f"{name} ")]
    return [cell.strip() for cell in line.split("  ") if cell]


def test_the_whole_text_of_a_small_network(tmp_path):
    result = run(written(tmp_path, SMALL))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == TEXT


def test_timm_clips_each_number_of_a_gain_and_has_no_recipe():
    lines = lines_of("timm/test_nfnet")
    assert lines[1:10] == [
        "agc       a unit's norm(gradient) is cut to lambda * max(norm(weight), eps)",
        "lambda    0.01",
        "eps       0.001",
        "unit      timm: a kernel's output channel; each number of a gain; a whole bias",
        "excluded  head.fc.kernel head.fc.bias",
        "decay     no recipe",
        "tensors   93: 91 clipped",
        "units     4,058: 3,057 clipped",  # 1001 fewer: the head's outputs, and its bias
        "",
    ]
    assert row(lines, ".conv0.gain") == [".conv0.gain", "gain", "16", "each", "16", "0.01", "-"]
    assert row(lines, ".se.fc0.kernel")[3:] == ["I", "8", "0.01", "-"]
    assert row(lines, ".fc.bias")[3:] == ["all", "1", "-", "-"]


def test_a_tensor_as_a_unit_and_every_role_decaying(tmp_path):
    tables = '[agc]\nunit = "tensor"\nexclude = []\n[recipe]\nweight_decay_exclude = []\n'
    lines = lines_of(written(tmp_path, f'{HEAD}extends = "nfnet-f0"\n{tables}'))
    assert "unit      tensor: a whole tensor" in lines
    assert not any(line.startswith("excluded") for line in lines)
    assert "decay     2e-05" in lines
    assert "tensors   233: 233 clipped, 233 decayed" in lines
    assert "units     233: 233 clipped" in lines
    assert row(lines, ".fc.kernel")[3:] == ["all", "1", "0.01", "2e-05"]


def test_clipping_that_is_off_is_said_first_and_no_lambda_is_shown():
    lines = lines_of("nf-regnet-b0")
    assert lines[:2] == [
        "nf-regnet-b0",
        "agc       off, no gradient is clipped: agc.enabled = false",
    ]
    assert not any(line.startswith(("lambda", "eps", "excluded")) for line in lines)
    assert "tensors   244: 0 clipped, 87 decayed" in lines
    assert row(lines, ".conv0.kernel")[3:] == ["H W I", "36", "-", "5e-05"]
    rows = lines[lines.index("stem") :]
    assert all(line.split()[-2] == "-" for line in rows if len(line.split()) > 1)


def test_a_decay_of_zero_is_no_decay(tmp_path):
    file = written(tmp_path, f'{HEAD}extends = "nfnet-f0"\n[recipe]\nweight_decay = 0.0\n')
    lines = lines_of(file)
    assert "tensors   233: 232 clipped, 0 decayed" in lines
    assert row(lines, ".conv0.kernel")[-1] == "-"


@pytest.mark.parametrize("name", nfspec.variants())
def test_every_parameter_has_a_row_under_its_heading_within_80_columns(name):
    lines = lines_of(name)
    assert max(map(len, lines)) <= 80
    heading, names = "", []
    for line in lines[lines.index("stem") :]:
        first, *cells = line.split()
        heading = heading if cells else first
        names += [heading + first if first.startswith(".") else first] if cells else []
    assert names == list(nfspec.resolve(nfspec.load(name)).parameters)


@pytest.mark.parametrize("name", ["nfnet-f1", "nf-regnet-b0", "timm/eca_nfnet_l0"])
def test_json_holds_every_rule(name):
    plan = nfspec.resolve(nfspec.load(name))
    data = json.loads(run(name, "--json").stdout)
    recipe = plan.recipe
    assert list(data) == [
        "name",
        "digest",
        "agc",
        "weight_decay",
        "weight_decay_exclude",
        "totals",
        "parameters",
    ]
    assert (data["name"], data["digest"]) == (plan.name, plan.digest)
    assert data["agc"] == json.loads(plan.agc.model_dump_json())
    assert data["weight_decay"] == (recipe.weight_decay if recipe else None)
    rules = clip_rules(plan)
    for each, parameter in zip(data["parameters"], plan.parameters.values(), strict=True):
        rule = json.loads(json.dumps(asdict(rules[parameter.name])))
        assert {key: each[key] for key in rule} == rule
        assert (each["name"], each["role"]) == (parameter.name, parameter.role)
        assert tuple(each["shape"]) == parameter.shape
        decays = recipe and parameter.role not in recipe.weight_decay_exclude
        assert each["decay"] == (recipe.weight_decay if decays else 0.0 if recipe else None)
    kernel = data["parameters"][0]
    assert (kernel["section"], kernel["axes"], kernel["units"]) == (
        "stem",
        [0, 1, 2],
        kernel["shape"][-1],
    )


def test_totals_are_sums_of_the_rows(tmp_path):
    data = json.loads(run(written(tmp_path, SMALL), "--json").stdout)
    rows = data["parameters"]
    clipped = [each for each in rows if each["clipping"] is not None]
    assert data["totals"] == {
        "tensors": len(rows),
        "clipped_tensors": len(clipped),
        "decayed_tensors": sum(each["decay"] > 0 for each in rows),
        "units": sum(each["units"] for each in rows),
        "clipped_units": sum(each["units"] for each in clipped),
    }
    assert json.loads(run("timm/test_nfnet", "--json").stdout)["totals"]["decayed_tensors"] is None


def test_a_spec_that_does_not_load_is_a_message(tmp_path):
    result = run(written(tmp_path, f'{HEAD}extends = "nfnet-f0"\nagc.exclude = ["head"]\n'))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "agc.exclude[0]" in result.stderr
