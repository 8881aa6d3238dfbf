"""docs/language.md and docs/errors.md: up to date, complete, and every example gives its error."""

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.language.codes import CODES, FILE
from nfspec.language.documents import documents, language, type_text
from nfspec.language.loader import dialects, layers, merge
from nfspec.language.named import HEADS, STEMS
from nfspec.language.schema import generate
from nfspec.language.template import value_text

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_pages_are_what_the_models_and_the_codes_give(path):
    assert path.read_text(encoding="utf-8") == documents()[path], "run make docs"


def test_every_field_has_a_row_with_each_dialects_value():
    tables = dict(re.findall(r"^## \[(\w+)\]$(.*?)(?=^## |\Z)", language(), re.S | re.M))
    model, stated = generate(), [merge(layers(name))[0] for name in dialects()]
    named = {name for name, schema in model["properties"].items() if "$ref" in schema}
    assert set(tables) == named
    for name in named:
        fields = model["$defs"][model["properties"][name]["$ref"].rpartition("/")[2]]["properties"]
        rows = re.findall(r"^\| `(\w+)` \|.*$", tables[name], re.M)
        assert rows == list(fields)
        for field in fields:
            (row,) = re.findall(rf"^\| `{field}` \| (.*) \|$", tables[name], re.M)
            values = [each.get(name, {}).get(field) for each in stated]
            cells = ["" if value is None else f"`{value_text(value)}`" for value in values]
            assert row.split(" | ")[2:] == cells, (name, field)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 65536}, "whole number from 1 to 65,536"),
        ({"type": "number", "exclusiveMinimum": 0}, "number above 0"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number from 0 and below 1"),
        ({"enum": ["a", "b", "c"]}, '`"a"`, `"b"` or `"c"`'),
        ({"type": "array", "items": {"type": "string"}}, "list of entries: text"),
    ],
)
def test_types_in_words(schema, text):
    assert type_text(schema) == text


def codes_in_sources():
    """Every string constant of the sources that is a code."""
    for folder in ("nfspec", "backends", "conformance", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "codes.py":
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield from re.findall(r"^(?:SPEC-[A-Z-]+|INPUT)$", node.value)


def test_every_code_of_the_sources_is_explained_and_no_other():
    assert set(codes_in_sources()) == set(CODES)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_the_example_of_a_code_gives_its_message(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if code.example:
        Path(FILE).write_text(code.example)
    words = code.command.split()[1:]
    said = CliRunner().invoke(app, words)
    assert (said.exit_code, said.stderr) == (2, f"{code.message}\n")
    (report,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [problem["code"] for problem in report["problems"]] == [code.name]


def test_every_name_has_a_row_with_what_it_stands_for():
    lines = language().splitlines()
    assert '| `"deep_tiered_pool"` | 3/8, 4/8, 8/8 | `3` | 2, 1, 1 | `"max"` |' in lines
    assert '| `"nf_resnet"` | `"none"` |  | `0.01` |' in lines
    rows = [re.match(r'\| `"(\w+)"` \|', line) for line in lines]
    assert [row[1] for row in rows if row] == [*STEMS, *HEADS]
