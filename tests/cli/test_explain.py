"""`nfspec explain`."""

import json

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.language.codes import CODES


def run(*arguments):
    return CliRunner().invoke(app, ["explain", *arguments])


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_code_is_explained_as_the_page_does(code):
    result = run(code.name.lower())
    assert result.exit_code == 0
    plain = " ".join(result.stdout.split())
    for text in (code.name, code.when, code.fix, code.example, code.message, code.command):
        assert " ".join(text.split()) in plain


def test_without_a_code_all_are_listed():
    lines = run().stdout.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(CODES)
    assert max(map(len, lines)) <= 80


def test_json_has_every_part():
    assert json.loads(run("--json").stdout)[0]["name"] == next(iter(CODES))
    one = json.loads(run("SPEC-TOML", "--json").stdout)
    assert one.keys() == {"name", "when", "fix", "example", "message", "command"}


def test_an_unknown_code_is_refused_with_the_nearest():
    result = run("SPEC-TOM")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "no error has the code 'SPEC-TOM'; nfspec explain lists them all; "
        'did you mean "SPEC-TOML"?\n'
    )
