"""Specs written as TOML."""

import tomllib

import pytest

import nfspec
from nfspec.language.template import path_text, resolved, value_text

HEAD = 'schema = "nfspec/1"\nname = "mine"\nextends = "nfnet-f0"\nsource = "a test"\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3, "3"),
        (0.2, "0.2"),
        (1e-5, "1e-05"),
        (2.0, "2.0"),
        ("same", '"same"'),
        ((1, 2), "[1, 2]"),
        (("auto", (0.5, 1)), '["auto", [0.5, 1]]'),
        ({}, "{}"),
        ('a "b" \\ c', r'"a \"b\" \\ c"'),
        ("\x1b\x7f\x9b\u2028é", r'"\u001b\U0000007f\U0000009b\U00002028é"'),
    ],
)
def test_values_are_toml(value, text):
    def lists(value):
        return [lists(v) for v in value] if isinstance(value, tuple) else value

    assert value_text(value) == text
    assert tomllib.loads(f"x = {text}")["x"] == lists(value)


@pytest.mark.parametrize("path", [("agc", "names", "stages.*.gain"), ("a-b", "é"), ("a", "")])
def test_paths_are_dotted_keys(path):
    actual = tomllib.loads(f"{path_text(path)} = 1")
    for part in path:
        actual = actual[part]
    assert actual == 1


def test_bare_keys_are_not_quoted():
    assert path_text(("agc", "roles", "skip_gain")) == "agc.roles.skip_gain"


def test_long_arrays_of_numbers_are_folded_and_mean_the_same(tmp_path):
    betas = [[0.123456789 + s + b / 7 for b in range(n)] for s, n in enumerate((1, 2, 6, 3))]
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + f"stages.beta = {betas}\n")
    spec = nfspec.load(file)
    lines = resolved(spec)
    start = lines.index("stages.beta         = [")
    assert lines[start - 1] == f"# {file}:5"
    assert lines[lines.index("]")] == "]"
    assert max(map(len, lines[start : start + 5])) <= 80
    again = tmp_path / "again.toml"
    again.write_text("\n".join(lines))
    assert nfspec.load(again).stages.beta == spec.stages.beta


def test_a_place_too_long_for_its_line_is_above_it_and_the_others_stay(tmp_path):
    folder = tmp_path / ("long" * 10)
    folder.mkdir()
    file = folder / "mine.toml"
    file.write_text(HEAD + "[ws]\nddof = 1\n")
    lines = resolved(nfspec.load(file))
    start = lines.index("ws.ddof     = 1")
    assert lines[start - 1] == f"# {file}:6"
    assert lines[start + 1].startswith("ws.gain     = true       # deepmind.toml:")
