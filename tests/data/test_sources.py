"""Sources of labelled images: the files that are taken, their order, and those held out."""

import sys

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data.opening import open_held_out, open_sources
from nfspec.data.sources import Source, digits, folder, split

from folders import picture, pictures


def made(*counts):
    """A source of images that are nothing but their number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Source(
        tuple(f"class{n}" for n in range(len(counts))),
        labels,
        tuple(f"image{n}" for n in range(len(labels))),
        lambda number: Image.new("L", (1, 1), number),
    )


def complaint(call, *arguments):
    with pytest.raises(nfspec.InputError) as error:
        call(*arguments)
    return str(error.value)


# digits


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), digits()
    assert ours.classes == tuple("0123456789")
    assert ours.labels.dtype == np.int64
    assert ours.labels.tolist() == theirs.target.tolist()
    assert ours.names[0] == "digits/0"
    assert len(set(ours.names)) == len(ours) == len(ours.names) == 1797
    levels = [round(255 * level / 16) for level in range(17)]  # 0 to 16 there, none a tie
    for number in (0, 1, 900, 1796):
        expected = np.asarray(levels)[theirs.images[number].astype(int)]
        actual = ours.image(number, 1)
        assert (actual.mode, actual.size) == ("L", (8, 8))
        assert (np.asarray(actual) == expected).all()
        assert (np.asarray(ours.image(number, 3)) == expected[..., None]).all()


def test_digits_are_opened_by_name_and_a_fifth_held_out():
    training, held = open_sources("digits", 0.2, 0)
    assert len(training) + len(held) == 1797
    # Of each of ten classes within half an image of a fifth.
    assert abs(len(held) - 0.2 * 1797) <= 5
    assert sorted(training.names + held.names) == sorted(digits().names)
    assert open_held_out("digits", 0.2, 0, ()).names == held.names
    assert open_held_out("digits", 1.0, 0, ()).names == digits().names


def test_the_recipe_of_nfnet_nano_is_for_the_digits_that_are_trained_on():
    assert nfspec.load("nfnet-nano").recipe.images == len(open_sources("digits", 0.2, 0)[0])


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert complaint(digits) == (
        "digits come with scikit-learn, which is not installed; run: pip install scikit-learn"
    )


# folders


def test_classes_and_images_are_in_the_order_of_their_names(tmp_path):
    for name in ("dog/b.png", "dog/a.png", "cat/z.png", "Emu/1.png", "cat/10.png", "cat/9.png"):
        picture(tmp_path / name)
    actual = folder(tmp_path)
    assert actual.classes == ("Emu", "cat", "dog")
    assert actual.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert actual.labels.dtype == np.int64
    expected = ["Emu/1.png", "cat/10.png", "cat/9.png", "cat/z.png", "dog/a.png", "dog/b.png"]
    assert actual.names == tuple(str(tmp_path / name) for name in expected)


def test_each_number_opens_the_image_of_its_name(tmp_path):
    actual = folder(pictures(tmp_path, a=3, b=2))
    assert [actual.image(n, 1).getpixel((0, 0)) for n in range(5)] == [0, 1, 2, 16, 17]
    chosen = actual.some(np.array([4, 1, 2])).some(np.array([2, 0]))
    assert chosen.names == (actual.names[2], actual.names[4])
    assert chosen.labels.tolist() == [0, 1]
    assert [chosen.image(n, 1).getpixel((0, 0)) for n in range(2)] == [2, 17]
    assert chosen.classes == actual.classes


def test_images_lie_at_any_depth_under_any_spelling_of_their_suffix(tmp_path):
    expected = ("x/1.JPG", "x/deep/2.PnG", "x/deep/er/3.webp", "x/with.dots/4.5.gif", "x/é ü.bmp")
    for name in expected:
        picture(tmp_path / name)
    assert folder(tmp_path).names == tuple(str(tmp_path / name) for name in expected)


def test_what_is_no_image_is_passed_over(tmp_path):
    picture(tmp_path / "x/1.png")
    for name in ("x/notes.txt", "x/labels.json", "x/png", "x/2.png.part", "x/Thumbs.db", "top.png"):
        (tmp_path / name).write_bytes(b"nothing")
    assert folder(tmp_path).names == (str(tmp_path / "x/1.png"),)


def test_what_pillow_writes_but_cannot_read_is_no_image(tmp_path):
    picture(tmp_path / "x/1.png")
    picture(tmp_path / "x/2.pdf")
    assert folder(tmp_path).names == (str(tmp_path / "x/1.png"),)


def test_a_folder_that_is_called_like_an_image_is_no_image(tmp_path):
    picture(tmp_path / "x/1.png")
    picture(tmp_path / "x/more.jpg/2.png")
    assert folder(tmp_path).names == (
        str(tmp_path / "x/1.png"),
        str(tmp_path / "x/more.jpg/2.png"),
    )


def test_hidden_classes_and_files_are_passed_over(tmp_path):
    for name in ("x/1.png", "x/._1.png", ".cache/2.png"):
        picture(tmp_path / name)
    actual = folder(tmp_path)
    assert (actual.classes, actual.names) == (("x",), (str(tmp_path / "x/1.png"),))


def test_hidden_folders_within_a_class_are_passed_over(tmp_path):
    for name in ("x/1.png", "x/.thumbnails/1.png", "x/deep/.trash/er/2.png"):
        picture(tmp_path / name)
    assert folder(tmp_path).names == (str(tmp_path / "x/1.png"),)


def test_a_dot_in_the_path_of_the_folder_itself_hides_nothing(tmp_path):
    assert len(folder(pictures(tmp_path / ".data" / "set", a=2, b=1))) == 3


def test_a_class_may_be_a_link_to_a_folder(tmp_path):
    pictures(tmp_path / "elsewhere", a=2)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/x").symlink_to(tmp_path / "elsewhere/a")
    assert folder(tmp_path / "set").names == tuple(str(tmp_path / f"set/x/{n}.png") for n in (0, 1))


def test_classes_that_are_given_keep_their_order_and_their_labels(tmp_path):
    actual = folder(pictures(tmp_path, a=1, c=2), ("d", "c", "b", "a"))
    assert actual.classes == ("d", "c", "b", "a")
    assert actual.labels.tolist() == [1, 1, 3]
    assert [name.split("/")[-2] for name in actual.names] == ["c", "c", "a"]


# train and val


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_a_folder_beside_train_is_what_is_held_out(tmp_path, name):
    pictures(tmp_path / "train", a=2, b=3)
    pictures(tmp_path / name, b=1, a=1)
    (tmp_path / "README.md").write_text("a data set")
    training, held = open_sources(tmp_path, 0.5, 0)
    assert training.names == folder(tmp_path / "train").names
    assert held.names == folder(tmp_path / name).names
    assert training.classes == held.classes == ("a", "b")
    assert held.labels.tolist() == [0, 1]
    assert open_held_out(str(tmp_path), 0.5, 0, training.classes).names == held.names


def test_val_comes_before_test(tmp_path):
    for name in ("train", "test", "val"):
        pictures(tmp_path / name, a=1)
    assert open_sources(tmp_path, 0.5, 0)[1].names == (str(tmp_path / "val/a/0.png"),)


def test_labels_of_val_are_those_of_train_though_a_class_is_not_in_it(tmp_path):
    pictures(tmp_path / "train", a=1, b=1, c=1)
    pictures(tmp_path / "val", c=2)
    assert open_sources(tmp_path, 0.5, 0)[1].labels.tolist() == [2, 2]


def test_train_without_val_is_not_taken_for_a_class(tmp_path):
    """Without this, a network of one class is trained, and is always right."""
    pictures(tmp_path / "train", cat=3, dog=3)
    training, held = open_sources(tmp_path, 0.3, 0)
    assert training.classes == held.classes == ("cat", "dog")


def test_classes_may_be_called_train_and_test_if_there_is_but_one_of_them(tmp_path):
    pictures(tmp_path, test=3, wagon=3)
    assert open_sources(tmp_path, 0.3, 0)[0].classes == ("test", "wagon")


def test_a_whole_folder_is_evaluated_on_or_what_was_held_out_of_it(tmp_path):
    pictures(tmp_path, a=5, b=10)
    held = open_sources(tmp_path, 0.4, 3)[1]
    assert open_held_out(tmp_path, 0.4, 3, ()).names == held.names
    assert open_held_out(tmp_path, 1.0, 3, ()).names == folder(tmp_path).names
    assert open_held_out(tmp_path, 1.0, 3, ("b", "a")).labels.tolist() == [0] * 10 + [1] * 5


# holding out


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.2, (10, 20, 5), (2, 4, 1)),
        (0.3, (9, 12, 14), (3, 4, 4)),  # 2.7, 3.6 and 4.2
        (0.01, (2, 30, 200), (1, 1, 2)),
        (0.9, (2, 3, 10), (1, 2, 9)),
        (0.99, (2, 3, 10), (1, 2, 9)),
    ],
)
def test_a_share_of_each_class_is_held_out_and_one_image_at_least(share, counts, expected):
    training, held = split(made(*counts), share, 0)
    assert tuple(np.bincount(held.labels)) == expected
    assert tuple(np.bincount(training.labels)) == tuple(np.subtract(counts, expected))


def test_each_image_is_in_one_part_with_its_label_and_in_order():
    source = made(7, 12, 3)
    actual = []
    for part in split(source, 0.3, 5):
        numbers = [int(name.removeprefix("image")) for name in part.names]
        assert numbers == sorted(numbers)
        assert part.labels.tolist() == source.labels[numbers].tolist()
        assert [part.image(n, 1).getpixel((0, 0)) for n in range(len(part))] == numbers
        assert part.classes == source.classes
        actual += numbers
    assert sorted(actual) == list(range(22))


def test_the_seed_decides_who_is_held_out():
    def held(seed):
        return split(made(40, 40), 0.25, seed)[1].names

    assert held(1) == held(1)
    assert held(1) != held(2)
    # Nor the first or the last of each class: 10 of 40 are so once in 8e8 times.
    assert held(0) not in [
        tuple(f"image{n + start + c}" for c in (0, 40) for n in range(10)) for start in (0, 30)
    ]


def test_classes_of_a_size_do_not_hold_out_the_same_places():
    held = split(made(40, 40), 0.25, 0)[1]
    numbers = [int(name.removeprefix("image")) for name in held.names]
    assert [number - 40 for number in numbers[10:]] != numbers[:10]


def test_images_of_one_class_do_not_decide_who_of_another_is_held_out():
    def of_second(first):
        held = split(made(first, 20), 0.25, 0)[1]
        return [int(name.removeprefix("image")) - first for name in held.names[-5:]]

    assert of_second(4) == of_second(9)


def test_a_negative_seed_is_refused():
    assert (
        complaint(split, made(4, 4), 0.25, -1)
        == "seed: expected a whole number from 0 on; found -1"
    )
