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
        "                        depth         px  source",
        "nfnet",
        "  nfnet-f0              1,2,6,3      256  arXiv:2102.06171 table 1",
    ]
    assert "  timm/nf_resnet50      3,4,6,3      288  timm 1.0.31" in lines
    assert lines[-4:] == [
        "base specs (dialects): to extend, not networks",
        "  deepmind                                deepmind-research/nfnets at f5de0ed",
        "  timm                                    timm 1.0.31",
        "  timm-dm                                 timm 1.0.31",
    ]
    assert max(map(len, lines)) <= 80
    listed = {line.split()[0] for line in lines if line.startswith("  ")} - {"depth"}
    assert listed == {*nfspec.variants(), *nfspec.dialects()}


def test_json_says_of_every_network_what_loading_it_says():
    listed = {each["name"]: each for each in json.loads(run("--json").stdout)}
    assert list(listed) == [*nfspec.variants(), *nfspec.dialects()]
    for name in nfspec.variants():
        spec = nfspec.load(name)
        assert listed[name] == {
            "name": spec.name,
            "kind": "network",
            "family": spec.family,
            "depth": list(spec.stages.depth),
            "test": spec.input.test,
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
        "source": "",
    }
