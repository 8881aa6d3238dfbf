"""`nfspec new`."""

import re

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app, new

FIELD = re.compile(r"^#(?=[a-z_0-9]+ = )", re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_writes_a_file_that_means_what_it_extends(folder):
    result = run("new", "my-net")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "wrote my-net.toml; edit it, then run: nfspec check my-net.toml\n"
    assert [path.name for path in folder.iterdir()] == ["my-net.toml"]
    assert run("check", "my-net.toml").exit_code == 0
    assert run("diff", "my-net.toml", "nfnet-f0").exit_code == 0
    text = (folder / "my-net.toml").read_text()
    lines = text.splitlines()
    assert str(folder) not in text and "#:schema" not in text  # no path of this machine
    assert lines[:4] == [
        'schema = "nfspec/1"',
        'name = "my-net"',
        'extends = "nfnet-f0"',
        'source = "my own, from nfnet-f0"',
    ]
    assert "#depth = [1, 2, 6, 3]                   # Blocks in each stage." in lines


@pytest.mark.parametrize("base", nfspec.variants())
def test_any_base_with_every_line_uncommented_still_means_the_same(base, folder):
    assert run("new", "mine", "--from", base).exit_code == 0
    file = folder / "mine.toml"
    text, uncommented = FIELD.subn("", file.read_text())
    assert uncommented == text.count("  # ") > 20
    file.write_text(text)
    mine, theirs = nfspec.load(file), nfspec.load(base)
    left_out = {"name", "source"}
    assert mine.model_dump(exclude=left_out) == theirs.model_dump(exclude=left_out)


def test_the_values_are_those_of_the_base(folder):
    run("new", "mine", "--from", "nf-regnet-b1", "--output", "other.toml")
    text = (folder / "other.toml").read_text()
    assert "\n#depth = [2, 4, 7, 7] " in text
    assert '\n#kind = "silu" ' in text
    assert '\nname = "mine"\nextends = "nf-regnet-b1"\n' in text


def test_a_file_can_be_the_base_from_where_a_spec_can_extend_it(folder):
    (folder / "bases").mkdir()
    run("new", "first", "--output", "bases/first.toml")
    result = run("new", "second", "--from", "bases/first.toml")
    assert result.exit_code == 0
    assert 'extends = "bases/first.toml"' in (folder / "second.toml").read_text()
    assert run("check", "second.toml").exit_code == 0
    result = run("new", "third", "--from", "second.toml", "--output", "bases/third.toml")
    assert result.exit_code == 2
    assert "second.toml is not in the folder" in result.stderr
    assert not (folder / "bases" / "third.toml").exists()


def test_an_existing_file_is_left_as_it_is(folder):
    (folder / "mine.toml").write_text("precious")
    result = run("new", "mine")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "mine.toml exists" in result.stderr
    assert (folder / "mine.toml").read_text() == "precious"


def test_a_file_that_is_made_meanwhile_is_left_as_it_is(folder, monkeypatch):
    made = new.starting_spec

    def slowly(*arguments):
        (folder / "mine.toml").write_text("precious")
        return made(*arguments)

    monkeypatch.setattr(new, "starting_spec", slowly)
    result = run("new", "mine")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "mine.toml exists, and is left as it is; replace it with --force\n"
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [
        ("mine.toml", "precious")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("two words",), '"two words" cannot be the name of a spec'),
        (("x" * 81,), "cannot be the name of a spec"),
        (("-" + "-", "-x"), '"-x" cannot be the name of a spec'),
        (("mine", "--from", "deepmind"), "is a base spec, not a network"),
        (("mine", "--from", "nfnet-f00"), "[SPEC-NAME]"),
        (("mine", "--from", "none.toml"), "[SPEC-READ]"),
        (("mine", "--output", "none/mine.toml"), "there is no folder none"),
        (("mine", "--output", "mine.txt"), "ends in .toml"),
        (("mine/",), "ends in .toml"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(arguments, message, folder):
    result = run("new", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert list(folder.iterdir()) == []


def test_the_name_of_a_file_is_a_name_too(folder):
    assert run("new", "net.toml").exit_code == 0
    assert nfspec.load(folder / "net.toml").name == "net"


def test_a_name_with_a_slash_makes_a_file_of_its_last_part(folder):
    assert run("new", "me/net").exit_code == 0
    assert nfspec.load(folder / "net.toml").name == "me/net"


def test_a_disk_that_fails_leaves_nothing_behind(folder, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("os.link", fail)
    result = run("new", "mine")
    assert (result.exit_code, result.stderr) == (
        2,
        "mine.toml: cannot be written: No space left on device\n",
    )
    assert list(folder.iterdir()) == []
