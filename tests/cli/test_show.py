"""`nfspec show`."""

import json
import tomllib
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.language.loader import VARIANTS

HEAD = 'schema = "nfspec/1"\nname = "mine"\nextends = "nfnet-f0"\nsource = "a test"\n'

TEST_NFNET = """\
timm/test_nfnet
source       timm 1.0.31: models/nfnet.py, test_nfnet
digest       {digest}
parameters   383,080
MACs         285,058,560 at 160 x 160 px
activations  10.0 MB at 160 x 160 px, one image, float32
image        train 160 px, test 160 px, 3 channels
activation   silu, gamma 1.78813 (deepmind) on the weight, beta after
ws           1 / sqrt(N * (var + 1e-05)), N = fan-in, ddof 0, float32
agc          lambda 0.01, eps 0.001, unit timm, not head.fc.kernel head.fc.bias

          in mid  out grp k s alpha   beta  std attn  drop params   MACs
stem       3      128     3 4                              97.7 k  268 M
stages.0  40 x 40 px
blocks.0 128   8   32   1 3 1   0.2      1    1 se 8       7.26 k 10.4 M
stages.1  20 x 20 px
blocks.0  32  16   64   2 3 2   0.2 0.9806 1.02 se 16      8.37 k 2.97 M
stages.2  10 x 10 px
blocks.0  64  24   96   3 3 2   0.2 0.9806 1.02 se 24      18.7 k 1.81 M
stages.3  5 x 5 px
blocks.0  96  32  128   4 3 2   0.2 0.9806 1.02 se 32      33.1 k  840 k
head     128 192 1000     1 1                               218 k  806 k
"""


def run(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


def test_the_whole_text_of_a_small_network():
    result = run("timm/test_nfnet")
    digest = nfspec.load("timm/test_nfnet").digest[:16]
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == TEST_NFNET.format(digest=digest)


def test_a_floored_bottleneck_is_marked_and_explained():
    lines = run("nfnet-f0+").stdout.splitlines()
    (block,) = [line for line in lines if "*" in line and line.startswith("blocks.0")]
    assert block.split()[:5] == ["blocks.0", "192", "*128", "384", "1"]
    note = '* stages.0: mid 192 floored to 128, 1 group (rounding.groups = "floor")'
    assert lines[-1] == note


def test_a_long_source_is_folded_between_its_words():
    lines = run("nf-regnet-b0").stdout.splitlines()
    assert lines[1:3] == [
        "source       arXiv:2101.08692 §5;",
        "             deepmind-research/nfnets/{base,nf_regnet,experiment_nf_regnets}.py",
    ]


def test_blocks_with_expected_std_eca_and_drop_rates():
    row = next(line for line in run("nfnet-f0").stdout.splitlines() if "blocks.5" in line)
    expected = "blocks.5 1536 768 1536 6 3 1 0.2 0.9129 1.095 se 768 0.167 6.50 M"
    assert row.split()[: len(expected.split())] == expected.split()
    assert " eca 5 " in run("timm/eca_nfnet_l0").stdout
    assert " se " not in run("timm/nf_resnet50").stdout.partition("\n\n")[2]


def test_stem_and_head_rows_sum_up_what_they_hold():
    lines = run("timm/nf_resnet50").stdout.splitlines()
    stem, head = (next(line for line in lines if line.startswith(n)) for n in ("stem", "head"))
    assert stem.split()[:5] == ["stem", "3", "64", "7", "4"]  # 7x7 of stride 2, then the pool
    assert head.split()[:3] == ["head", "2048", "1000"]  # no final conv, so no middle width
    assert "0.400" in next(
        line for line in run("nfnet-f3").stdout.splitlines() if line[:4] == "head"
    )


def test_a_leaky_relu_a_number_for_gamma_and_agc_off_are_said(tmp_path):
    file = tmp_path / "mine.toml"
    table = '[activation]\nkind = "leaky_relu"\ngamma = 1.5\n[agc]\nenabled = false\n'
    file.write_text(HEAD + table)
    lines = run(file).stdout.splitlines()
    activation = "leaky_relu of slope 0.01, gamma 1.5 on the activation, beta after"
    assert f"activation   {activation}" in lines
    assert "agc          off" in lines


@pytest.mark.parametrize("name", nfspec.variants())
def test_every_network_fits_80_columns_with_nothing_cut(name):
    for options in ((), ("--resolved",)):
        result = run(name, *options)
        assert result.exit_code == 0
        lines = [line for line in result.stdout.splitlines() if line[:10] != 'source = "']
        assert max(map(len, lines)) <= 80
        assert "…" not in result.stdout and "\x1b" not in result.stdout


def test_size_changes_what_is_counted_and_nothing_else():
    small, large = run("nfnet-f0", "--size", 128).stdout, run("nfnet-f0", "--size", 256).stdout
    assert large == run("nfnet-f0").stdout
    assert "MACs         3,114,721,280 at 128 x 128 px" in small
    assert "stages.0  32 x 32 px" in small
    differing = [a for a, b in zip(small.split("\n"), large.split("\n"), strict=True) if a != b]
    assert not any(line.startswith(("parameters", "digest", "image")) for line in differing)


def test_a_source_cannot_steer_the_terminal(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(HEAD.replace("a test", "a\\u001b[2Jtest"))
    assert "source       a\\x1b[2Jtest\n" in run(file).stdout
    assert "\x1b" not in run(file, "--resolved").stdout


def test_json_holds_all_that_is_derived():
    plan = nfspec.resolve(nfspec.load("nfnet-f0+"))
    data = json.loads(run("nfnet-f0+", "--json", "--size", 224).stdout)
    assert list(data) == [
        "name",
        "source",
        "family",
        "digest",
        "channels",
        "train_size",
        "test_size",
        "counts",
        "blocks",
        "taps",
        "tap_info",
        "ops",
        "parameters",
    ]
    assert data["blocks"] == [asdict(block) for block in plan.blocks]
    assert data["blocks"][0]["requested_mid_channels"] == 192
    counted = nfspec.count(plan, 224)
    assert data["counts"]["macs"] == counted.macs
    assert data["counts"]["parameters"] == counted.parameters
    assert len(data["counts"]["blocks"]) == len(plan.blocks) + 2
    assert [p["name"] for p in data["parameters"]] == list(plan.parameters)
    kernel = {"name": "stem.conv0.kernel", "shape": [3, 3, 3, 16], "role": "kernel"}
    assert data["parameters"][0] | kernel == data["parameters"][0]
    assert [op["name"] for op in data["ops"]] == [op.name for op in plan.ops]
    assert {op["op"] for op in data["ops"]} == {type(op).__name__ for op in plan.ops}


@pytest.mark.parametrize("name", ["nfnet-f1", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l1"])
def test_resolved_is_a_spec_that_stands_alone(name, tmp_path):
    file = tmp_path / "alone.toml"
    file.write_text(run(name, "--resolved").stdout)
    assert "extends" not in tomllib.loads(file.read_text())
    assert nfspec.load(file).model_dump() == nfspec.load(name).model_dump()


def test_resolved_says_where_each_value_was_written():
    lines = run("nfnet-f1", "--resolved").stdout.splitlines()
    assert lines[:6] == [
        'schema = "nfspec/1"  # nfnet-f1.toml:2',
        'name   = "nfnet-f1"  # nfnet-f1.toml:3',
        "# nfnet-f1.toml:5",
        'source = "arXiv:2102.06171 table 1; deepmind-research/nfnets/base.py"',
        'family = "nfnet"     # nfnet-f0.toml:6',
        "",
    ]
    for path, file, value in (
        ("input.test", "nfnet-f1.toml", "test = 320"),
        ("stages.group_width", "nfnet-f0.toml", "group_width = 128"),
        ("stages.alpha", "dialects/deepmind.toml", "alpha = 0.2"),
    ):
        (line,) = [line for line in lines if line.startswith(f"{path} ")]
        label, _, number = line.partition("# ")[2].partition(":")
        assert label == file.removeprefix("dialects/")
        assert (VARIANTS / file).read_text().splitlines()[int(number) - 1].startswith(value)


def test_resolved_as_json_has_each_value_and_its_place():
    data = json.loads(run("nfnet-f1", "--resolved", "--json").stdout)
    spec = nfspec.load("nfnet-f1")
    assert (data["name"], data["digest"]) == ("nfnet-f1", spec.digest)
    field = data["fields"]["stages.depth"]
    assert list(field) == ["value", "file", "line", "column"]
    assert (field["value"], field["file"]) == ([2, 4, 12, 6], "nfnet-f1.toml")
    assert all(place["line"] > 0 for place in data["fields"].values())


def test_a_size_has_no_meaning_where_nothing_is_counted():
    result = run("nfnet-f0", "--resolved", "--size", 64)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--size" in result.stderr


def test_weight_standardisation_by_stage_is_told_by_part():
    rules = 'ws.eps_rule=["max", "max", "add", "none"]'
    text = run("nfnet-f0", "--set", "ws.eps=[1e-4, 1e-4, 1e-6, 1]", "--set", rules).stdout
    facts = " ".join(text.split())
    assert (
        "ws stem, stages.0, stages.1: 1 / sqrt(max(N * var, 0.0001)), N = fan-in, ddof 0, float32; "
        "stages.2: 1 / sqrt(N * (var + 1e-06)), N = fan-in, ddof 0, float32; stages.3, head: not "
        "standardised agc"
    ) in facts
    assert max(map(len, text.splitlines())) <= 80
    text = run("nfnet-f0", "--set", "ws.gain=[true, true, true, false]").stdout
    assert (
        "stages.3, head: 1 / sqrt(max(N * var, 0.0001)), N = fan-in, ddof 0, float32, no gain"
        in (" ".join(text.split()))
    )
