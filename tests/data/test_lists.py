"""Lists of images: CSV and Parquet files of paths and labels."""

from pathlib import Path

import pytest

from nfspec.data.lists import is_list, listed
from nfspec.data.opening import open_held_out, open_sources
from nfspec.errors import InputError

from folders import picture


@pytest.fixture
def place(tmp_path):
    """Six images in a folder, and a function that writes a list beside it."""
    for n in range(6):
        picture(tmp_path / "images" / f"{n}.png")

    def write(text, name="list.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


ROWS = [("0.png", "dog"), ("1.png", "cat"), ("2.png", "dog"), ("3.png", "ant")]


def lines(separator=",", header="path,label", rows=ROWS):
    names = header.replace(",", separator)
    body = [f"images/{name}{separator}{label}" for name, label in rows]
    return "\n".join([*([names] if header else []), *body]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        lines(),
        lines(header="Label of it,IMAGE,label").replace("images/", "x,images/"),
        lines(";"),
        lines("\t"),
        lines(header=""),
        "\ufeff" + lines(),
        lines().replace("\n", "\r\n"),
        lines().replace("dog", '"dog"') + "\n\n",
    ],
)
def test_the_forms_of_a_list(text, place):
    source = listed(place(text))
    assert source.classes == ("ant", "cat", "dog")
    assert source.labels.tolist() == [2, 1, 2, 0]
    assert [name[-5:] for name in source.names] == ["0.png", "1.png", "2.png", "3.png"]
    assert source.image(3, 3).mode == "RGB"


def test_absolute_paths_beside_others(place, monkeypatch, tmp_path):
    """And a list that is named by a relative path."""
    place(lines() + f"{tmp_path / 'images' / '5.png'},ant\n")
    monkeypatch.chdir(tmp_path)
    source = listed(Path("list.csv"))
    assert source.keys() == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    with pytest.raises(InputError, match=r"gone\.csv: no such file; expected a list of images"):
        open_sources("gone.csv", 0.2, 0)


def test_numbers_are_in_the_order_of_their_size(place):
    rows = [(f"{n}.png", label) for n, label in enumerate((10, 9, 2, 10))]
    source = listed(place(lines(rows=rows)))
    assert source.classes == ("2", "9", "10") and source.labels.tolist() == [2, 1, 0, 2]


def test_numbers_are_places_in_a_list_of_classes(place):
    """Unless the classes themselves are called so."""
    rows = [(f"{n}.png", label) for n, label in enumerate((2, 0, 2, 1))]
    names = ("ant", "cat", "dog")
    source = listed(place(lines(rows=rows)), names)
    assert source.classes == names and source.labels.tolist() == [2, 0, 2, 1]
    source = listed(place(lines(rows=rows)), ("2", "1", "0", "ant"))
    assert source.labels.tolist() == [0, 2, 0, 1]
    for rows in ([("0.png", 3)], [("0.png", 0), ("1.png", "ant")]):
        with pytest.raises(InputError, match=r"has no class '[03]'; it has ant, cat, dog"):
            listed(place(lines(rows=rows)), names)


def test_parquet(place, tmp_path):
    from pyarrow import parquet, table

    path = tmp_path / "list.parquet"
    columns = {"label": [1, 0], "path": ["images/0.png", "images/1.png"], "more": [None, "x"]}
    parquet.write_table(table(columns), path)
    source = listed(path)
    assert is_list(path) and source.classes == ("0", "1") and source.labels.tolist() == [1, 0]
    parquet.write_table(table({"path": ["images/0.png"], "label": [None]}), path)
    with pytest.raises(InputError, match=r"list\.parquet, row 1: expected a path and a label"):
        listed(path)
    for label in (1.5, b"dog"):
        parquet.write_table(table({"path": ["images/0.png"], "label": [label]}), path)
        with pytest.raises(InputError, match="row 1: expected text or a whole number"):
            listed(path)
    parquet.write_table(table({"image": [{"bytes": b"x", "path": "a"}], "label": [1]}), path)
    with pytest.raises(
        InputError, match=r"row 1: expected a path; found an image itself. Save the"
    ):
        listed(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="not a Parquet file that can be read"):
        listed(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column of paths in it; expected one called path"),
        ("path,label\n", "no images in it"),
        (lines(header="path,mood"), "no column of labels in it; expected one called label"),
        (lines(header="where,label"), "no column of paths .* found where, label"),
        (lines() + "images/4.png\n", r"list\.csv:6: expected a path and a label"),
        (lines() + "images/4.png,\n", r"list\.csv:6: expected a path and a label"),
        (lines() + 'images/4.png,"dog\n', r"list\.csv:6: not a row of a CSV file"),
        (lines() + "images/9.png,dog\n", r"1 of 5 images do not exist: .*list\.csv:6: images/9"),
        (lines() + "images/0.png,cat\n", r"images/0\.png is there twice"),
        (lines() + "images,cat\n", r"list\.csv:6: images"),
        (lines() + f"{'a' * 5000}.png,cat\n", r"1 of 5 images do not exist: .*list\.csv:6: "),
    ],
)
def test_lists_that_cannot_be_used(text, words, place):
    with pytest.raises(InputError, match=words):
        listed(place(text))


def test_another_encoding(place):
    with pytest.raises(InputError, match=r"list\.csv:2: not UTF-8; save the list as UTF-8"):
        listed(place("path,label\nimages/0.png,Gr\u00e4ser\n", encoding="latin-1"))


def test_classes_of_a_network(place):
    path = place(lines())
    given = listed(path, ("ant", "bee", "cat", "dog"))
    assert given.labels.tolist() == [3, 2, 3, 0]
    with pytest.raises(InputError, match=r"list\.csv:2: the network has no class 'dog'"):
        listed(path, ("ant", "cat"))


def test_to_train_on_and_to_evaluate_on(place):
    rows = [(f"{n}.png", "ab"[n % 2]) for n in range(6)]
    path = place(lines(rows=rows))
    training, held = open_sources(path, 0.3, 0)
    assert len(training) == 4 and len(held) == 2 and training.classes == held.classes
    assert open_held_out(path, 0.3, 0, training.classes).names == held.names
    val = place(lines(rows=rows[4:]), "val.csv")
    first = place(lines(rows=rows[:4]), "train.csv")
    training, held = open_sources(first, 0.3, 0, val)
    assert (len(training), len(held)) == (4, 2)
    assert open_held_out(first, 0.3, 0, training.classes, val).names == held.names
    with pytest.raises(InputError, match="either trained on or held out"):
        open_sources(path, 0.3, 0, val)
