"""Numbers and tables as the commands print them."""

import pytest
import typer

from nfspec.cli import app
from nfspec.console import bold, broken, compact, print_lines, say, table


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (736, "736"),
        (999, "999"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (3_250_000, "3.25 M"),
        (71_489_576, "71.5 M"),
        (12_400_000_000, "12.4 G"),
        (5 * 10**16, "50000 T"),
    ],
)
def test_compact_keeps_three_digits_and_never_four(number, text):
    assert compact(number) == text


def test_table_aligns_each_column_and_leaves_no_trailing_blanks():
    rows = [("name", "n", "note"), ("a", "12", ""), ("bcdef", "3", "x")]
    assert table(rows, "<><") == ["name    n  note", "a      12", "bcdef   3  x"]
    assert table(rows, ">><", gap=" ") == [" name  n note", "    a 12", "bcdef  3 x"]


def test_a_long_name_goes_on_below_so_that_names_stay_different():
    rows = [["a stem.width=16 ws.eps=0.1", "1"], ["a stem.width=16 ws.eps=0.2", "2"], ["b", "3"]]
    assert broken(rows, 16) == [
        ["a stem.width=16", "1"], ["  ws.eps=0.1", ""],
        ["a stem.width=16", "2"], ["  ws.eps=0.2", ""], ["b", "3"],
    ]  # fmt: skip
    assert broken([["", "x"], ["a" * 10, "y"]], 6) == [["", "x"], ["a" * 6, "y"], ["  aaaa", ""]]
    assert sum(len(name) for name, _ in broken([["a" * 10_000, ""]], 30)) < 600
    assert broken([["a\x1b[2J", ""]], 30) == [["a\\x1b[2J", ""]]


def test_what_a_terminal_would_act_on_is_spelt_out(capsys):
    print_lines(["a\x1b[31mb\r", bold("c\x1b[2J")])
    say("d\x1b[31m\x07\ne")
    out, err = capsys.readouterr()
    assert out == r"a\x1b[31mb\r" + "\n" + r"c\x1b[2J" + "\n"
    assert err == r"d\x1b[31m\x07" + "\ne\n"


ODD = "\x1b]0;red\x07.toml"  # not a colour, which typer takes away where there is no terminal


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", ODD),
        ("check", "missing" + ODD),
        ("diff", ODD, "nfnet-f0"),
        ("diff", ODD, ODD),
        ("show", "--resolved", ODD),
        ("show", ODD),
        ("agc", ODD),
        ("cost", ODD),
        ("new", "moth", "--output", "moth" + ODD),
        ("compare", "nfnet-nano", "--image", ODD),
        ("compare", "nfnet-nano", "--weights", ODD, "--size", "16", "--backends", "torch"),
        ("convert", ODD, "a.safetensors", "--variant", "nfnet-nano"),
        ("evaluate", ODD, "digits", "--weights", "a" + ODD),
        ("evaluate", "nfnet-nano", "digits", "--weights", ODD),
        ("train", "nfnet-nano", ODD),
        ("train", "nfnet-nano", "digits", "--recipe", ODD + "\x1b"),
        ("plot", ODD),
        ("conform", ODD + "x"),
        ("conform", "--subject", ODD, "--out", "here"),
        ("replay", ODD),
        ("bench", ODD + "x"),
        (ODD,),
        ("show", "nfnet-f0", "--size", ODD),
    ],
)
def test_names_of_files_are_printed_without_escapes(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = 'schema = "nfspec/1"\nname = "red"\nsource = "a test"\nextends = "nfnet-nano"\n'
    (tmp_path / ODD).write_text(text)
    with pytest.raises(SystemExit):
        typer.main.get_command(app).main(list(arguments), "nfspec")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert out + err
