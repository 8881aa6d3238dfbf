"""`nfspec list`."""

import json

from typer.testing import CliRunner

import nfspec
from nfspec.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["list", *arguments])


def test_text_is_grouped_by_family_and_fits_80_columns():
    result = run()
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[:3] == [
        "                        depth         px  params    MACs  source",
        "nfnet",
        "  nfnet-f0              1,2,6,3      256  71.5 M  12.4 G  arXiv:2102.06171",
    ]
    assert "  timm/nf_resnet50      3,4,6,3      288  25.6 M  6.76 G  timm 1.0.31" in lines
    assert lines[-4:] == [
        "base specs (dialects): to extend, not networks",
        f"  deepmind{' ' * 48}deepmind-research",
        f"  timm{' ' * 52}timm 1.0.31",
        f"  timm-dm{' ' * 49}timm 1.0.31",
    ]
    assert max(map(len, lines)) <= 80
    listed = {line.split()[0] for line in lines if line.startswith("  ")} - {"depth"}
    assert listed == {*nfspec.variants(), *nfspec.dialects()}


def test_json_says_of_every_network_what_loading_it_says():
    listed = {each["name"]: each for each in json.loads(run("--json").stdout)}
    assert list(listed) == [*nfspec.variants(), *nfspec.dialects()]
    for name in nfspec.variants():
        spec = nfspec.load(name)
        counted = nfspec.count(nfspec.resolve(spec), size=spec.input.test)
        assert listed[name] == {
            "name": spec.name,
            "kind": "network",
            "family": spec.family,
            "depth": list(spec.stages.depth),
            "test": spec.input.test,
            "parameters": counted.parameters,
            "macs": counted.macs,
            "source": spec.source,
        }


def test_json_of_a_dialect_leaves_open_what_it_leaves_open():
    dialect = json.loads(run("--json").stdout)[-3]
    assert dialect | {"source": ""} == {
        "name": "deepmind",
        "kind": "dialect",
        "family": None,
        "depth": None,
        "test": None,
        "parameters": None,
        "macs": None,
        "source": "",
    }


def test_a_pattern():
    assert [each["name"] for each in json.loads(run("nfnet-f[01]", "--json").stdout)] == [
        "nfnet-f0",
        "nfnet-f1",
    ]
    none = run("nfnet-fo")
    assert none.exit_code == 2 and 'did you mean "nfnet-f0"?' in none.stderr


def test_published_weights():
    lines = run("--pretrained").stdout.splitlines()
    assert lines[0].split() == ["name", "network", "top-1,", "%", "licence"]
    assert "deepmind/nfnet-f0           nfnet-f0               83.6  Apache-2.0" in lines
    assert max(map(len, lines)) <= 80
    (only,) = json.loads(run("--pretrained", "timm/test*", "--json").stdout)
    assert only["where"] == "hf-hub:timm/test_nfnet.r160_in1k"
