"""The schema for editors: up to date, named by every built-in file, true of good and bad files."""

import json
import tomllib

import jsonschema
import pytest

from nfspec.language import schema
from nfspec.language.loader import VARIANTS

from specs import HEAD, complaints, write

SCHEMA = json.loads(schema.FILE.read_text(encoding="utf-8"))
BUILT_IN = sorted(VARIANTS.rglob("*.toml"))

# What stands from line 5 on, and where the schema sees that it is wrong.
BAD = {
    "depht = [1]": "",
    "[stages]\ndepht = [1]": "stages",
    "[agc.roles]\ngian = 0.1": "agc.roles",
    "[head]\nclasses = '10'": "head.classes",
    "[head]\nclasses = 10.5": "head.classes",
    "[head]\nclasses = 0": "head.classes",
    "[head]\nclasses = true": "head.classes",
    "[head]\ndropout = 1.0": "head.dropout",
    "[head]\nconv = 'wide'": "head.conv",
    "head = 1": "head",
    "recipe = []": "recipe",
    "[[stages]]\ndepth = [1]": "stages",
    "[stages]\ndepth = []": "stages.depth",
    "[stages]\ndepth = [1, 0, 1]": "stages.depth.1",
    "[stages]\nwidth = 256": "stages.width",
    "[stages]\ngroup_width = 'full'": "stages.group_width",
    "[stages]\ngroup_width = [1, 'full']": "stages.group_width",
    "[stages]\nbeta = [[1, 'x']]": "stages.beta",
    "[activation]\ngamma = 'table'": "activation.gamma",
    "[block]\nfirst_expansion = true": "block.first_expansion",
    "[block]\nconvs = 3": "block.convs",
    "[agc.names]\n'a.*' = -1": "agc.names.a.*",
    "[recipe]\nweight_decay_exclude = ['gains']": "recipe.weight_decay_exclude.0",
}
GOOD = [
    "",
    "[stages]\ngroup_width = [128, 'none', 128, 128]\nbeta = [1, [1, 1], 0.5, 1]",
    "[stages]\nbeta = 'auto'\nalpha = [0.1, 0.2, 0.2, 0.1]\n[eca]\nkernel = 3",
    "[agc.names]\n'stages.*' = 0.1\n[agc.roles]\nskip_gain = 1\n[recipe]\nbatch = 8",
]


def faults(text):
    validator = jsonschema.Draft202012Validator(SCHEMA)
    errors = validator.iter_errors(tomllib.loads(text))
    return [".".join(map(str, error.absolute_path)) for error in errors]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_file_is_what_the_models_give():
    assert schema.FILE.read_text(encoding="utf-8") == schema.text(), (
        "run python -m nfspec.language.schema"
    )
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_built_in_files_are_good_and_name_the_schema(path):
    text = path.read_text(encoding="utf-8")
    key, _, target = text.partition("\n")[0].partition(" ")
    assert key == "#:schema"
    assert (path.parent / target).resolve() == schema.FILE.resolve()
    assert faults(text) == []


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_good_files_are_good_in_the_schema_too(text):
    assert complaints(write(HEAD + text)) == []
    assert faults(HEAD + text) == []


@pytest.mark.parametrize("text", BAD, ids=[text[:40] for text in BAD])
def test_bad_files_are_bad_in_the_schema_too(text):
    assert complaints(write(HEAD + text)) != []
    assert faults(HEAD + text) == [BAD[text]]


@pytest.mark.parametrize("line", [0, 1])
def test_version_and_name_are_required(line):
    lines = HEAD.splitlines()
    assert faults("\n".join(lines)) == []
    assert faults("\n".join(lines[:line] + lines[line + 1 :])) == [""]


@pytest.mark.parametrize("line", ["schema = 'nfspec/2'", "name = 'a b'", "extends = 1"])
def test_the_first_lines_are_looked_at(line):
    key = line.partition(" ")[0]
    lines = [line if each.startswith(key) else each for each in HEAD.splitlines()]
    assert faults("\n".join(lines)) == [key]


def test_every_table_is_closed_and_every_field_explained():
    tables = [SCHEMA, *SCHEMA["$defs"].values()]
    for table in tables:
        assert table["additionalProperties"] is False
        assert table["description"]
        for field in table["properties"].values():
            assert field.get("description") or "$ref" in field
    assert len(tables) == 17
    assert not any("required" in table for table in tables[1:])


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[stem]\ntype = 'deep'\nwidth = 64\n[head]\ntype = 'nf_resnet'", None),
        ("[stem]\ntype = '4x4'", "stem.type"),
        ("[stem]\ntype = 'deep'\nwidth = '64'", "stem.width"),
        ("[head]\ntype = 'nf-resnet'", "head.type"),
    ],
)
def test_names_of_stems_and_heads(text, where):
    assert faults(HEAD + text) == ([] if where is None else [where])
    assert bool(complaints(write(HEAD + text))) == (where is not None)
