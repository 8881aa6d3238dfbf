"""`nfspec table`."""

import csv
import io
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.cli.candidates import _values


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["table", *map(str, arguments)])


def test_rows_are_sorted_and_the_front_is_marked():
    result = run("nfnet-f1", "nf-resnet-50", "nfnet-f0", "--accelerator", "h100", "--plot", "t.png")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["nf-resnet-50", "nfnet-f0", "nfnet-f1"]
    assert "83.6%  *  ImageNet, published" in lines[2]
    assert lines[5].split() == ["h100,", "batch", "256", "dtype", "memory", "step", "images/s",
                                "hours"]  # fmt: skip
    assert lines[-1] == "wrote  t.png" and max(map(len, lines)) <= 80
    with Image.open("t.png") as picture:
        assert picture.width > 800
    assert run("nfnet-f1", "nfnet-nano", "--plot", "u.png").exit_code == 0


def test_a_row_for_each_combination():
    result = run(
        "nfnet-nano", "--set", "stages.alpha=0.1,0.2", "--set", "head.classes=10",
        "--set", "stages.width=[64,128,256,256],[64,64,64,64]", "--csv", "--sort", "name",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["changes"] for row in rows] == [
        f"stages.alpha={alpha} stages.width={width}"
        for alpha in ("0.1", "0.2")
        for width in ("[64,128,256,256]", "[64,64,64,64]")
    ]
    assert {row["name"] for row in rows} == {"nfnet-nano"} and rows[0]["top1"] == ""


def test_json_has_every_field():
    (row,) = json.loads(run("nfnet-f0", "--accelerator", "h100,v100", "--json").stdout)
    assert (row["top1"], row["front"], {*row["on"]}) == (0.836, True, {"h100", "v100"})
    assert row["on"]["h100"]["images_per_second"] > row["on"]["v100"]["images_per_second"]


def test_commas_in_brackets_and_quotes_are_part_of_a_value():
    assert _values("a.b=1, 2") == ["a.b=1", "a.b=2"]
    assert _values("a=[1,[2,3]],[4]") == ["a=[1,[2,3]]", "a=[4]"]
    assert _values("""a="x,y",'z,"'""") == ['a="x,y"', """a='z,"'"""]
    assert _values("a={b=1,c=2}") == ["a={b=1,c=2}"]
    assert _values("nothing") == ["nothing"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nowhere.toml",), "nowhere.toml: "),
        (("nfnet-f0", "--accelerator", "cpu"), "--accelerator: the cpu is measured by nfspec cost"),
        (("nfnet-f0", "--accelerator", "h1000"), "accelerator: expected one of"),
        (("nfnet-f0", "--sort", "size"), "--sort: expected one of macs,"),
        (("nfnet-f0", "--json", "--csv"), "--json and --csv: give one of them"),
        (("nfnet-f0", "--accelerator", "h100", "--precision", "int8"), "precision"),
        (("nfnet-f0", "--set", "stages.alpha=" + ",".join(map(str, range(1001)))), "--set: more"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_device_that_no_image_fits_is_said():
    result = run("nfnet-f7+", "nfnet-f0", "--accelerator", "tpu-v5e")
    assert result.exit_code == 0 and "no image fits" in result.stdout
    (_, row) = csv.reader(io.StringIO(run("nfnet-f7+", "--accelerator", "tpu-v5e", "--csv").stdout))
    assert row[6:11] == [""] * 5
