"""Folders of images that are refused: empty, unknown or double classes, links, confusable names."""

import pytest

import nfspec
from nfspec.data.opening import open_held_out, open_sources
from nfspec.data.sources import folder

from folders import picture, pictures

WANTED = (
    "expected one with a folder of images for each class, a list of images (.csv, .parquet), or "
    ".tar, .tfrecord or .array_record files"
)


def complaint(call, *arguments):
    with pytest.raises(nfspec.InputError) as error:
        call(*arguments)
    return str(error.value)


def test_there_is_no_such_folder_or_it_is_a_file(tmp_path):
    path = tmp_path / "missing"
    for call in (
        lambda: folder(path),
        lambda: open_sources(path, 0.2, 0),
        lambda: open_held_out(path, 0.2, 0, ()),
    ):
        assert complaint(call) == f"{path}: no such folder; {WANTED}"
    file = picture(tmp_path / "image.png")
    assert complaint(open_sources, str(file), 0.2, 0) == f"{file}: not a folder; {WANTED}"


def test_there_are_no_class_folders(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / ".git").mkdir()
    assert complaint(open_sources, tmp_path, 0.2, 0) == (
        f"{tmp_path}: no class folders in it; expected {tmp_path}/CLASS/IMAGE, a folder for each "
        "class"
    )


def test_empty_classes_are_named(tmp_path):
    pictures(tmp_path, a=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "c/notes.txt").write_text("none")
    assert complaint(open_sources, tmp_path, 0.2, 0) == (
        f"{tmp_path}: no images in b, c; put some there, or remove the folder"
    )


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    pictures(tmp_path, a=2, b=1)
    assert complaint(open_sources, tmp_path, 0.2, 0) == (
        'class "b": 1 image in all, and one is held out; add images, or put those to evaluate on '
        "into a folder val beside train"
    )


def test_strangers_are_named_in_val_and_in_what_is_evaluated_on(tmp_path):
    pictures(tmp_path / "train", cat=1, emu=1)
    val = pictures(tmp_path / "val", emu=1, dog=1, cow=1)
    message = f"{val}: the network has no class cow, dog; it has cat, emu"
    assert complaint(open_sources, tmp_path, 0.2, 0) == message
    assert complaint(open_held_out, tmp_path, 0.2, 0, ("cat", "emu")) == message
    assert complaint(open_held_out, val, 1.0, 0, ("cat", "emu")) == message


def test_two_classes_that_are_one_folder_are_refused(tmp_path):
    """Each image would have two labels."""
    pictures(tmp_path / "set", a=2)
    (tmp_path / "set/b").symlink_to("a")
    assert complaint(folder, tmp_path / "set").startswith(
        f"{tmp_path}/set: the classes a and b are one folder by a link"
    )
    pictures(tmp_path / "else", x=2)
    for name in ("c", "d"):
        (tmp_path / "two" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "two" / name).symlink_to(tmp_path / "else/x")
    assert "the classes c and d are one folder" in complaint(folder, tmp_path / "two")


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
@pytest.mark.parametrize("second", ["a/9.png", "b/9.png"])
def test_one_file_is_not_two_images(tmp_path, link, second):
    """It would have two labels, or be trained on and held out."""
    pictures(tmp_path, a=2, b=2)
    getattr(tmp_path / second, link)(tmp_path / "a/0.png")
    for call in (lambda: open_sources(tmp_path, 0.5, 0), lambda: folder(tmp_path, ("b", "a"))):
        message = complaint(call)
        assert f"{tmp_path}/a/0.png" in message and f"{tmp_path}/{second}" in message
        assert "are one file by a link" in message


def test_a_class_below_another_is_refused(tmp_path):
    picture(tmp_path / "a/more/1.png")
    (tmp_path / "b").symlink_to("a/more")
    assert "are one file by a link" in complaint(folder, tmp_path)


def test_an_image_is_not_trained_on_and_held_out(tmp_path):
    pictures(tmp_path / "train", a=2, b=2)
    pictures(tmp_path / "val", a=1)
    open_sources(tmp_path, 0.5, 0)
    (tmp_path / "val/a/9.png").hardlink_to(tmp_path / "train/a/1.png")
    message = complaint(open_sources, tmp_path, 0.5, 0)
    assert f"{tmp_path}/train/a/1.png and {tmp_path}/val/a/9.png are one file" in message


def test_links_to_files_elsewhere_are_images(tmp_path):
    pictures(tmp_path / "store", a=3)
    (tmp_path / "set/x").mkdir(parents=True)
    for n in range(3):
        (tmp_path / f"set/x/{n}.png").symlink_to(tmp_path / f"store/a/{n}.png")
    assert len(folder(tmp_path / "set")) == 3


COMPOSED, TAKEN_APART = "caf\xe9", "cafe\u0301"


def test_names_that_differ_by_unicodes_spellings_alone_are_refused(tmp_path):
    pictures(tmp_path, **{COMPOSED: 2, TAKEN_APART: 2})
    message = complaint(folder, tmp_path)
    assert r"the classes 'cafe\u0301' and 'caf\xe9' are one name" in message


def test_names_are_known_in_either_spelling(tmp_path):
    """A data set of Linux, and its part that was on macOS."""
    pictures(tmp_path / "train", **{COMPOSED: 2, "tea": 2})
    pictures(tmp_path / "val", **{TAKEN_APART: 1})
    training, held = open_sources(tmp_path, 0.5, 0)
    assert training.classes == held.classes == (COMPOSED, "tea")
    assert held.labels.tolist() == [0]


def test_names_that_differ_by_case_are_two_classes(tmp_path):
    """Letters may be classes: `a` and `A`."""
    assert folder(pictures(tmp_path, a=1, A=1)).classes == ("A", "a")


def test_ten_thousand_classes_are_a_short_line(tmp_path):
    names = [f"class{n:05}\x1b[31m\n" for n in range(2000)]
    for name in names:
        (tmp_path / name).mkdir()
    message = complaint(folder, tmp_path)
    assert r"no images in class00000\x1b[31m\n, class00001" in message
    assert "and 1,990 more; put some there" in message
    other = complaint(folder, tmp_path, tuple(f"known{n}" for n in range(2000)))
    assert "and 1,990 more; it has known0, " in other
    for text in (message, other):
        assert len(text) < 1000 and "\x1b" not in text and "\n" not in text
