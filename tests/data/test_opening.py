"""Data as users name it: folders, files, patterns, several at once; and what is evaluated on."""

import re

import pytest

from nfspec.data.opening import open_held_out, open_sources
from nfspec.errors import InputError

from folders import archive, example, picture, pictures, png, records

LABELS = ("cat", "cat", "dog", "dog")


def tar(path, first=0):
    """Four images in a tar file, whose greys begin at a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return archive(
        path,
        [
            member
            for n, label in enumerate(LABELS)
            for member in ((f"{n}.png", png(first + n)), (f"{n}.cls", label.encode()))
        ],
    )


def greys(source):
    return [source.image(n, 3).getpixel((0, 0))[0] for n in range(len(source))]


def parts(*arguments, **options):
    training, held = open_sources(*arguments, **{"held_out": 0.5, "seed": 0, **options})
    assert training.classes == held.classes == ("cat", "dog")
    return sorted(greys(training)), sorted(greys(held))


def test_a_share_of_the_images_in_files_is_held_out(tmp_path):
    for n in range(2):
        tar(tmp_path / "shards" / f"{n}.tar", 10 * n)
    for data in (tmp_path / "shards", str(tmp_path / "shards" / "?.tar")):
        training, held = parts(data)
        assert sorted(training + held) == [0, 1, 2, 3, 10, 11, 12, 13]
        assert len(training) == len(held) == 4
    training, held = parts(tmp_path / "shards" / "0.tar")
    assert sorted(training + held) == [0, 1, 2, 3]


def test_words_in_the_names_of_files_tell_their_parts_apart(tmp_path):
    tar(tmp_path / "cats-train-000.tar")
    tar(tmp_path / "cats-train-001.tar", 10)
    tar(tmp_path / "cats-validation-000.tar", 20)
    tar(tmp_path / "cats-test-000.tar", 30)
    assert parts(tmp_path) == ([0, 1, 2, 3, 10, 11, 12, 13], [20, 21, 22, 23])
    assert parts(tmp_path, val=tmp_path / "cats-test-000.tar")[1] == [30, 31, 32, 33]
    assert greys(open_held_out(tmp_path, 1.0, 0, ())) == [20, 21, 22, 23]


def test_files_in_folders_of_parts(tmp_path):
    tar(tmp_path / "train" / "0.tar")
    records(
        (tmp_path / "val").mkdir() or tmp_path / "val" / "a.tfrecord",
        [example(image=png(90), label=b"dog")],
    )
    assert parts(tmp_path) == ([0, 1, 2, 3], [90])
    assert greys(open_held_out(tmp_path, 1.0, 0, ("cat", "dog"))) == [90]


def test_folders_beside_files_are_classes(tmp_path):
    pictures(tmp_path, cat=2, dog=2)
    tar(tmp_path / "all.tar", 100)
    training, held = parts(tmp_path)
    assert sorted(training + held) == [0, 1, 16, 17]


def test_folders_without_images_beside_files_are_none(tmp_path):
    """Such as the folder in which the last training lies."""
    tar(tmp_path / "all.tar", 100)
    picture(tmp_path / "runs" / "first" / "training.png")
    training, held = parts(tmp_path)
    assert sorted(training + held) == [100, 101, 102, 103]


def test_several_are_evaluated_together(tmp_path):
    first, second = tar(tmp_path / "0.tar"), tar(tmp_path / "1.tar", 10)
    pictures(tmp_path / "photos", cat=1, dog=2)
    together = open_held_out([first, tmp_path / "photos", second], 1.0, 0, ())
    assert greys(together) == [0, 1, 2, 3, 0, 16, 17, 10, 11, 12, 13]
    assert together.labels.tolist() == [0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1]
    one = archive(tmp_path / "2.tar", [("0.png", png(9)), ("0.cls", b"eel")])
    assert open_held_out([first, one], 1.0, 0, ()).classes == ("cat", "dog", "eel")
    for again in ([first, first], [tmp_path / "photos", first, first, tmp_path / "photos"]):
        with pytest.raises(InputError, match=r"is there twice|are one file by a link"):
            open_held_out(again, 1.0, 0, ())


def test_a_file_is_not_trained_and_evaluated_on(tmp_path):
    path = tar(tmp_path / "0.tar")
    (tmp_path / "1.tar").symlink_to(path)
    for val in (path, tmp_path / "1.tar"):
        with pytest.raises(InputError, match=r"is there twice|are one file by a link"):
            open_sources(path, 0.5, 0, val)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.tar", "none.tar: no such file"),
        ("none.tfrecord", "none.tfrecord: no such file"),
        ("*.png", r"\*.png: no file matches this pattern"),
        ("*", r"0.tar and 1 more: expected tar files alone, or record files alone"),
        ("none", "none: no such folder; expected one with a folder of images for each class, a "),
    ],
)
def test_what_is_not_there_or_not_of_a_kind(name, words, tmp_path):
    tar(tmp_path / "0.tar")
    records(tmp_path / "a.tfrecord", [example(image=png(), label=1)])
    with pytest.raises(InputError, match=words):
        open_sources(tmp_path / name, 0.5, 0)


def test_a_dataset_of_several_splits_with_other_names(tmp_path):
    (tmp_path / "dataset_dict.json").write_text("{}")
    (tmp_path / "extra").mkdir()
    with pytest.raises(
        InputError, match=f"^{re.escape(str(tmp_path))}: a dataset of several splits"
    ):
        open_sources(tmp_path, 0.5, 0)


def test_classes_that_are_named_may_have_no_images(tmp_path):
    training, held = open_sources(tar(tmp_path / "0.tar"), 0.5, 0, classes=("cat", "eel", "dog"))
    assert sorted(training.labels.tolist()) == sorted(held.labels.tolist()) == [0, 2]
